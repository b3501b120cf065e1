"""Positions told by turning (RoFormer)."""

from __future__ import annotations

from keras import ops

from kexue_lib.layers.common import Tensor
from kexue_lib.precision import as_float, at_least_float32
from kexue_lib.validation import require


def rotate(inputs: Tensor, offset: int | Tensor = 0) -> Tensor:
    r"""Return queries or keys, their features turned in pairs by angles that grow with the place.

    $$\begin{pmatrix} x'_{2i} \\ x'_{2i+1} \end{pmatrix} =
      \begin{pmatrix} \cos m\theta_i & -\sin m\theta_i \\ \sin m\theta_i & \cos m\theta_i \end{pmatrix}
      \begin{pmatrix} x_{2i} \\ x_{2i+1} \end{pmatrix}, \qquad \theta_i = 10000^{-2i/d}$$

    at place m. The product of a query and a key so turned depends on their places by the difference only. The
    angles are computed in float32 at least. (Llama's checkpoints pair feature i with i + d/2 instead.)

    Args:
        inputs: shape (..., time, d) with an even d; whole numbers are converted to Keras' default float type.
        offset: the place of the first step.

    Returns:
        The shape and the dtype of the inputs.

    Raises:
        ValueError: if d is odd or there is no axis of time.

    >>> turned = rotate([[1.0, 0.0], [1.0, 0.0]])  # by 0 and by 1 radian
    >>> ops.convert_to_numpy(turned).round(4).tolist()
    [[1.0, 0.0], [0.5403000116348267, 0.8414999842643738]]

    Source: Su et al., "RoFormer", arXiv 2104.09864.
    """
    inputs = as_float(inputs)
    size, shape = inputs.shape[-1], f"shape {tuple(inputs.shape)}"
    require(len(inputs.shape) > 1, "inputs", shape, "of shape (..., time, features)")
    require(size % 2 == 0, "inputs", shape, "of an even number of features")
    wide = at_least_float32(inputs)
    places = ops.cast(ops.arange(ops.shape(inputs)[-2]) + offset, wide.dtype)
    frequencies = ops.cast(ops.arange(0, size, 2), wide.dtype) * (-1 / size)
    angles = ops.expand_dims(places, 1) * ops.power(ops.cast(10000.0, wide.dtype), frequencies)
    even, odd, cosines, sines = wide[..., 0::2], wide[..., 1::2], ops.cos(angles), ops.sin(angles)
    turned = ops.stack([even * cosines - odd * sines, even * sines + odd * cosines], axis=-1)
    return ops.cast(ops.reshape(turned, ops.shape(inputs)), inputs.dtype)
