"""Names that the layers share."""

from typing import Any

import keras

Tensor = Any  # of the backend, symbolic, or what the backend converts
Shape = tuple[int | None, ...]

registered = keras.saving.register_keras_serializable(package="kexue")
