"""Half precision is for storing, not for adding up."""

from typing import Any

import keras
from keras import ops

Tensor = Any  # of the backend, symbolic, or what the backend converts


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor as float64 if that is what it is, and in float32 otherwise.

    Sums over labels or time steps, and exponentials, overflow or lose their digits in float16 and bfloat16.

    Args:
        tensor: any shape, any type of numbers.

    Returns:
        The same shape.

    >>> str(keras.backend.standardize_dtype(at_least_float32(ops.ones(2, "float16")).dtype))
    'float32'
    """
    tensor = ops.convert_to_tensor(tensor)
    is_double = keras.backend.standardize_dtype(tensor.dtype) == "float64"
    return tensor if is_double else ops.cast(tensor, "float32")


def as_float(tensor: Tensor) -> Tensor:
    """Return the tensor as it is if its dtype is a float, and in Keras' default float type otherwise.

    Args:
        tensor: any shape, any type of numbers.

    Returns:
        The same shape.

    >>> str(keras.backend.standardize_dtype(as_float(ops.ones(2, "int32")).dtype))
    'float32'
    """
    tensor = ops.convert_to_tensor(tensor)
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))
    return tensor if is_float else ops.cast(tensor, keras.config.floatx())
