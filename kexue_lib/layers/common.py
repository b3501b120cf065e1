"""Names that the layers share."""

from typing import Any

import keras
from keras import ops

Tensor = Any  # of the backend, symbolic, or what the backend converts
Shape = tuple[int | None, ...]

registered = keras.saving.register_keras_serializable(package="kexue")


def to_heads(heads: int, size: int, use_bias: bool = True, **kwargs) -> keras.layers.Layer:
    """Return the dense layer from (batch, time, features) to (batch, heads, time, size)."""
    return einsum_dense("btd,dhk->bhtk", (heads, None, size), "hk" if use_bias else None, **kwargs)


def from_heads(size: int, use_bias: bool = True, **kwargs) -> keras.layers.Layer:
    """Return the dense layer from (batch, heads, time, features) to (batch, time, size)."""
    return einsum_dense("bhtk,hkd->btd", (None, size), "d" if use_bias else None, **kwargs)


def einsum_dense(equation: str, output_shape: Shape, bias_axes: str | None, **kwargs) -> keras.layers.Layer:
    """Return Keras' `EinsumDense`, which on PyTorch keeps float64 where Keras' `Dense` makes it float32."""
    layer = keras.layers.EinsumDense(equation, output_shape, bias_axes=bias_axes, **kwargs)
    layer.supports_masking = True  # it warns otherwise; what is masked, the layers of attention know
    return layer


def without_masked(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Return a tensor (batch, time, features) with 0 where the mask, (batch, time), is false.

    What stood there, NaN and infinity included, changes neither what is computed of it nor a gradient.
    """
    return tensor if mask is None else ops.where(ops.expand_dims(ops.cast(mask, "bool"), -1), tensor, 0)
