"""Names that the layers share."""

from typing import Any

import keras

Tensor = Any  # of the backend, symbolic, or what the backend converts
Shape = tuple[int | None, ...]

registered = keras.saving.register_keras_serializable(package="kexue")


def to_heads(heads: int, size: int, use_bias: bool = True, **kwargs) -> keras.layers.Layer:
    """Return the dense layer from (batch, time, features) to (batch, heads, time, size)."""
    axes = "hk" if use_bias else None
    # An einsum and not a matmul, for on PyTorch Keras' matmul of float64 is float32.
    return keras.layers.EinsumDense("btd,dhk->bhtk", (heads, None, size), bias_axes=axes, **kwargs)


def from_heads(size: int, use_bias: bool = True, **kwargs) -> keras.layers.Layer:
    """Return the dense layer from (batch, heads, time, features) to (batch, time, size)."""
    axes = "d" if use_bias else None
    return keras.layers.EinsumDense("bhtk,hkd->btd", (None, size), bias_axes=axes, **kwargs)
