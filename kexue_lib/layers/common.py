"""Names that the layers share."""

import keras
from keras import ops

from kexue_lib.precision import Tensor
from kexue_lib.validation import fits, require

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


def mask_of_steps(mask: Tensor, inputs: Tensor, name: str = "mask") -> Tensor:
    """Return a mask of time steps as Boolean tensor, shape (batch, time).

    Args:
        mask: Boolean, or numbers that are 0 or 1.
        inputs: what it belongs to, shape (batch, time, ...).
        name: of the mask, for the message.

    Raises:
        ValueError: if the mask does not have the first two axes of the inputs.
    """
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    is_mask = len(mask.shape) == 2 and fits(mask.shape, inputs.shape[:2])
    shapes = f"shape {tuple(mask.shape)} for inputs of shape {tuple(inputs.shape)}"
    require(is_mask, name, shapes, "of shape (batch, time), the first two axes of the inputs")
    return mask


def without_masked(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Return a tensor (batch, time, features) with 0 where the mask, (batch, time), is false.

    What stood there, NaN and infinity included, changes neither what is computed of it nor a gradient.

    Raises:
        ValueError: if the mask does not have the first two axes of the tensor.
    """
    return tensor if mask is None else ops.where(ops.expand_dims(mask_of_steps(mask, tensor), -1), tensor, 0)
