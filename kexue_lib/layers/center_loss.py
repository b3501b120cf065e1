"""A layer that carries its own loss (article 5765)."""

from __future__ import annotations

import math

import keras
from keras import ops

from kexue_lib.layers.common import Shape, Tensor, registered
from kexue_lib.precision import at_least_float32
from kexue_lib.validation import require, require_integer, require_real


@registered
class CenterLoss(keras.layers.Layer):
    r"""Pulls the features of each class together, by a loss that it adds to the model's.

    $$\frac{\lambda}{n} \sum_{i=1}^n \|f_i - c_{y_i}\|^2$$

    The centres $c$ are weights, trained with the rest of the model from 0 on. The features pass unchanged;
    the layer that classifies comes after it. The loss is computed in float32 at least.

    Args:
        classes: the number of classes.
        weight: $\lambda$, not negative.

    Call arguments:
        inputs: a list of the features, shape (batch, features), and the labels, whole numbers in
            0 … classes - 1 of shape (batch,) or (batch, 1). Another number makes the loss NaN.

    Returns:
        The features.

    Raises:
        ValueError: if the number of classes or the weight is out of range; when called, if the inputs are not
            such a list or the labels are not of an integer type. (A `keras.Input` is float32 unless told.)

    >>> layer = CenterLoss(classes=2, weight=0.5)
    >>> features, labels = ops.convert_to_tensor([[1.0, 2.0], [0.0, -1.0]]), ops.convert_to_tensor([1, 0])
    >>> _ = layer([features, labels])  # squared distances from 0: 5 and 1
    >>> float(ops.convert_to_numpy(layer.losses[0]))
    1.5

    Source: article 5765; Wen et al., "A discriminative feature learning approach for deep face recognition",
    ECCV 2016, who move the centres by a rule of their own.
    """

    def __init__(self, classes: int, weight: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.classes = require_integer("classes", classes, minimum=1)
        self.weight = require_real("weight", weight, minimum=0)

    def build(self, input_shape: list[Shape]) -> None:
        """Create the centres, shape (classes, features)."""
        ranks = [len(shape) if isinstance(shape, list | tuple) else 0 for shape in input_shape]
        is_pair = ranks in ([2, 1], [2, 2]) and input_shape[1][1:] in ((), (1,), [], [1])
        wanted = "features (batch, size) and labels (batch,) or (batch, 1)"
        require(is_pair, "inputs", f"shapes {input_shape}", wanted)
        # In half precision a centre would stop moving: small steps are lost in its rounding.
        self.centers = self.add_weight(
            shape=(self.classes, input_shape[0][1]), initializer="zeros", autocast=False, name="centers"
        )

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Add the loss and return the features, shape (batch, features)."""
        features, labels = inputs
        dtype = keras.backend.standardize_dtype(labels.dtype)
        require(keras.backend.is_int_dtype(dtype), "labels", f"dtype {dtype}", "of an integer type")
        labels = ops.reshape(labels, (-1,))
        known = ops.logical_and(labels >= 0, labels < self.classes)
        # The product makes the gradient dense. On TensorFlow the rows of a lookup reach the optimizer one by
        # one; Adam squares them before it sums, and its step would be too long by the root of their number.
        centers = ops.take(1.0 * self.centers, ops.where(known, labels, 0), axis=0)
        distances = ops.sum(ops.square(at_least_float32(features) - at_least_float32(centers)), axis=-1)
        self.add_loss(self.weight * ops.mean(ops.where(known, distances, math.nan)))
        return features

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """Return the shape of the features."""
        return tuple(input_shape[0])

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "classes": self.classes, "weight": self.weight}
