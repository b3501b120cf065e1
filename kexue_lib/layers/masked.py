"""Functions and pooling that heed the mask (article 6810).

They choose with `where` what counts. The older way, subtracting 1e10 from what is masked, is NaN in float16,
where 1e10 is infinite and 0 times infinity is not a number.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from kexue_lib import masks
from kexue_lib.layers.common import Shape, Tensor, mask_of_steps, registered, without_masked
from kexue_lib.precision import as_float, at_least_float32


def masked_mean(inputs: Tensor, mask: Tensor) -> Tensor:
    r"""Return the mean over the time steps whose mask is true, $\sum_t m_t x_t / \sum_t m_t$.

    What stands at masked steps, NaN and infinity included, changes neither the result nor a gradient.

    Args:
        inputs: shape (batch, time, ...); whole numbers are converted to Keras' default float type.
        mask: Boolean, shape (batch, time).

    Returns:
        Shape (batch, ...), of the dtype of the inputs; 0 where all steps are masked. Half precision is summed
        in float32.

    Raises:
        ValueError: if the mask does not have the first two axes of the inputs.

    >>> padded = [[1.0, 0.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]]
    >>> mask = [[True, True, True, True, True, False, False, False]]
    >>> round(float(masked_mean(padded, mask)[0]), 4), round(float(ops.mean(padded)), 4)
    (2.6, 1.625)

    Source: article 6810.
    """
    inputs, mask = _steps(inputs, mask)
    wide = at_least_float32(inputs)
    total = ops.sum(ops.where(mask, wide, 0), axis=1)
    count = ops.sum(ops.cast(mask, wide.dtype), axis=1)
    return ops.cast(total / ops.where(count > 0, count, 1), inputs.dtype)


def masked_max(inputs: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value of the time steps whose mask is true.

    What stands at masked steps, NaN and infinity included, changes neither the result nor a gradient.

    Args:
        inputs: shape (batch, time, ...); whole numbers are converted to Keras' default float type.
        mask: Boolean, shape (batch, time).

    Returns:
        Shape (batch, ...), of the dtype of the inputs; 0 where all steps are masked.

    Raises:
        ValueError: if the mask does not have the first two axes of the inputs.

    >>> padded = [[-1.0, -5.0, 0.0, 0.0]]
    >>> float(masked_max(padded, [[True, True, False, False]])[0]), float(ops.max(padded))
    (-1.0, 0.0)

    Source: article 6810.
    """
    inputs, mask = _steps(inputs, mask)
    largest = ops.max(ops.where(mask, inputs, -math.inf), axis=1)
    return ops.where(ops.any(mask, axis=1), largest, 0)


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax along the last axis over the entries whose mask is true; the others get 0.

    It is `kexue_lib.masks.apply`, by the name that goes with `masked_mean` and `masked_max`. A logit of -inf
    counts as masked. What stands at masked entries changes neither the result nor a gradient.

    Args:
        logits: shape (..., time); whole numbers are converted to Keras' default float type.
        mask: Boolean, broadcast to the shape of the logits.

    Returns:
        Shape (..., time), of the dtype of the logits. Rows sum to 1, rows that are masked altogether are 0.

    Raises:
        ValueError: if the mask does not broadcast to the shape of the logits.

    >>> weights = masked_softmax([[2.0, 2.0, 5.0], [1.0, 2.0, 3.0]], [[True, True, False], [False] * 3])
    >>> ops.convert_to_numpy(weights).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]

    Source: article 6810.
    """
    return masks.apply(logits, mask)


def _steps(inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and mask as tensors, the mask with as many axes as the inputs."""
    inputs = as_float(inputs)
    mask, rank = mask_of_steps(mask, inputs), len(inputs.shape)
    return inputs, ops.expand_dims(mask, axis=tuple(range(2, rank))) if rank > 2 else mask


@registered
class MaskedGlobalMaxPooling1D(keras.layers.Layer):
    """The largest value over time, of the steps that are not masked.

    Keras' `GlobalMaxPooling1D` ignores the mask: the maximum of a padded sequence of negative values comes
    from the padding. (Keras' `GlobalAveragePooling1D` heeds it.)

    Call arguments:
        inputs: shape (batch, time, features).
        mask: Boolean, shape (batch, time); Keras passes the one that the inputs carry. None: all steps count.

    Returns:
        Shape (batch, features); see `masked_max`. It has no time axis and carries no mask.

    Raises:
        ValueError: when called, if the inputs do not have three axes or the mask not the first two of them.

    >>> inputs, mask = ops.convert_to_tensor([[[-1.0], [-5.0], [0.0]]]), [[True, True, False]]
    >>> pooled = MaskedGlobalMaxPooling1D()(inputs, mask=ops.convert_to_tensor(mask))
    >>> ops.convert_to_numpy(pooled).tolist()
    [[-1.0]]

    Source: article 6810.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the maximum, shape (batch, features)."""
        return ops.max(inputs, axis=1) if mask is None else masked_max(inputs, mask)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> None:
        """Return no mask."""
        return None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (batch, features)."""
        return (input_shape[0], input_shape[2])


@registered
class AttentionPooling1D(keras.layers.Layer):
    r"""A weighted mean over time; the layer learns from each step how much it weighs.

    $$\lambda = \mathrm{softmax}_t(\alpha^\top \tanh(W x_t)), \qquad y = \sum_t \lambda_t x_t$$

    Masked steps weigh nothing. The sum is computed in float32 at least.

    Call arguments:
        inputs: shape (batch, time, features).
        mask: Boolean, shape (batch, time); Keras passes the one that the inputs carry. None: all steps count.

    Returns:
        Shape (batch, features); 0 where all steps are masked. It has no time axis and carries no mask.

    Raises:
        ValueError: when called, if the inputs do not have three axes or the mask not the first two of them.

    >>> layer, inputs = AttentionPooling1D(), ops.convert_to_tensor([[[1.0], [3.0], [9.0]]])
    >>> layer.build(inputs.shape)
    >>> layer.set_weights([0 * weight for weight in layer.get_weights()])  # all steps weigh the same
    >>> pooled = layer(inputs, mask=ops.convert_to_tensor([[True, True, False]]))
    >>> ops.convert_to_numpy(pooled).tolist()
    [[2.0]]

    Source: articles 5409 and 6906.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: Shape) -> None:
        r"""Create $W$, shape (features, features), and $\alpha$, shape (features, 1)."""
        features = input_shape[-1]
        self.kernel = self.add_weight(shape=(features, features), name="kernel")
        self.direction = self.add_weight(shape=(features, 1), name="direction")

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weighted mean, shape (batch, features)."""
        inputs = without_masked(inputs, mask)  # for a masked NaN times a weight of 0 would still be NaN
        weights = ops.expand_dims(self.weights_of(inputs, mask), axis=-1)
        return ops.cast(ops.sum(weights * at_least_float32(inputs), axis=1), inputs.dtype)

    def weights_of(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        r"""Return $\lambda$, shape (batch, time), float32 at least; for figures."""
        scores = ops.matmul(ops.tanh(ops.matmul(inputs, self.kernel)), self.direction)
        scores = at_least_float32(ops.squeeze(scores, axis=-1))
        return ops.softmax(scores, axis=-1) if mask is None else masked_softmax(scores, mask)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> None:
        """Return no mask."""
        return None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (batch, features)."""
        return (input_shape[0], input_shape[2])
