"""Self-attention that computes only the scores it uses (article 6853).

A mask on the full matrix of scores gives the right result and saves nothing. Here queries and keys are cut
into blocks such that what belongs together is a small dense product. Below, c counts the blocks and r the
places within one; n is the length, padded with masked places to whole blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from kexue_lib import masks
from kexue_lib.layers.attention import attend, of_keys
from kexue_lib.layers.common import Shape, Tensor, from_heads, mask_of_steps, registered, to_heads
from kexue_lib.precision import at_least_float32
from kexue_lib.validation import require_integer


class SelfAttention(keras.layers.Layer):
    """What the three have in common: the dense layers, and the full computation with a mask as reference.

    A subclass says who sees whom, `pattern_in_both_directions`, and how to compute it in blocks of
    `block_size` places, `attend_in_blocks`.
    """

    def __init__(self, heads: int, head_size: int, causal: bool = False, reference: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.heads = require_integer("heads", heads, minimum=1)
        self.head_size = require_integer("head_size", head_size, minimum=1)
        self.causal, self.reference = causal, reference
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: Shape) -> None:
        """Create the dense layers."""
        self.query_dense, self.key_dense, self.value_dense = (
            to_heads(self.heads, self.head_size, name=name, dtype=self.dtype_policy)
            for name in ("query", "key", "value")
        )
        self.output_dense = from_heads(input_shape[-1], name="output", dtype=self.dtype_policy)
        for dense in (self.query_dense, self.key_dense, self.value_dense):
            dense.build(input_shape)
        self.output_dense.build((None, self.heads, None, self.head_size))

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs, of the shape of the inputs."""
        queries = self.query_dense(inputs) * self.head_size**-0.5
        keys, values = self.key_dense(inputs), self.value_dense(inputs)
        length = ops.shape(inputs)[1]
        valid = ops.ones((1, length), dtype="bool") if mask is None else mask_of_steps(mask, inputs)
        if self.reference:
            seen = ops.logical_and(self.pattern(length), of_keys(valid))
            return self.output_dense(attend(queries, keys, values, seen))
        size = self.block_size
        blocks = (_to_blocks(x, size) for x in (queries, keys, values, ops.expand_dims(valid, (1, 3))))
        return self.output_dense(_from_blocks(self.attend_in_blocks(*blocks), length))

    def pattern(self, length: int | Tensor) -> Tensor:
        """Return who sees whom, Boolean of shape (length, length)."""
        pattern = self.pattern_in_both_directions(length)
        return ops.logical_and(pattern, masks.causal(length)) if self.causal else pattern

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the inputs."""
        return tuple(input_shape)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_size": self.head_size,
            "causal": self.causal,
            "reference": self.reference,
        }


class StridedSelfAttention(SelfAttention):
    """What the two that see every k-th place have in common: their stride k."""

    def __init__(
        self,
        heads: int,
        head_size: int,
        stride: int,
        causal: bool = False,
        reference: bool = False,
        **kwargs,
    ):
        super().__init__(heads, head_size, causal, reference, **kwargs)
        self.stride = self.block_size = require_integer("stride", stride, minimum=1)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "stride": self.stride}


@registered
class AtrousSelfAttention(StridedSelfAttention):
    r"""Self-attention in steps of k: place i sees the places j with $i - j \equiv 0 \pmod k$.

    There are $n^2/k$ scores for each head. With k of 1 it is ordinary attention.

    Args:
        heads: how many.
        head_size: of each.
        stride: k, at least 1.
        causal: whether a place sees none after it.
        reference: whether to compute all $n^2$ scores and mask them: the same result, slowly, for tests.

    Call arguments:
        inputs: shape (batch, n, features), any n.
        mask: Boolean, shape (batch, n), false for padding, which no place sees; Keras passes it.

    Returns:
        The shape of the inputs, with their mask. A place that may see nothing gets the last layer's bias.

    Raises:
        ValueError: if an argument is out of range; when called, if the mask is not of shape (batch, n).

    >>> layer = AtrousSelfAttention(heads=2, head_size=4, stride=3)
    >>> tuple(layer(ops.ones((2, 10, 8))).shape)
    (2, 10, 8)
    >>> ops.convert_to_numpy(layer.pattern(4)).astype(int).tolist()
    [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]]

    Source: article 6853.
    """

    def pattern_in_both_directions(self, length: int | Tensor) -> Tensor:
        """Return the pattern before the future is hidden."""
        return masks.strided(length, self.stride)

    def attend_in_blocks(self, queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Return the results, shape (batch, heads, c, r, size): ordinary attention among equal r."""
        return _softmax_sum(_strided_set(queries, keys, values, valid, self.causal))


@registered
class LocalSelfAttention(SelfAttention):
    r"""Self-attention to the neighbourhood: place i sees the places j with $|i - j| \le w$.

    A block of w places sees itself and the blocks beside it: 3nw scores for each head, 2nw if causal.

    Args:
        heads: how many.
        head_size: of each.
        window: w, at least 1.
        causal: whether a place sees none after it.
        reference: whether to compute all $n^2$ scores and mask them: the same result, slowly, for tests.

    Call arguments:
        inputs: shape (batch, n, features), any n.
        mask: Boolean, shape (batch, n), false for padding, which no place sees; Keras passes it.

    Returns:
        The shape of the inputs, with their mask. A place that may see nothing gets the last layer's bias.

    Raises:
        ValueError: if an argument is out of range; when called, if the mask is not of shape (batch, n).

    >>> layer = LocalSelfAttention(heads=2, head_size=4, window=3)
    >>> tuple(layer(ops.ones((2, 10, 8))).shape)
    (2, 10, 8)

    Source: article 6853.
    """

    def __init__(
        self,
        heads: int,
        head_size: int,
        window: int,
        causal: bool = False,
        reference: bool = False,
        **kwargs,
    ):
        super().__init__(heads, head_size, causal, reference, **kwargs)
        self.window = self.block_size = require_integer("window", window, minimum=1)

    def pattern_in_both_directions(self, length: int | Tensor) -> Tensor:
        """Return the pattern before the future is hidden."""
        return masks.band(length, self.window)

    def attend_in_blocks(self, queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Return the results, shape (batch, heads, c, r, size): each block attends to those beside it."""
        near = ops.abs(_distances_to_neighbours(self.window, self.causal)) <= self.window
        return _softmax_sum(_local_set(queries, keys, values, valid, near, self.causal))

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "window": self.window}


@registered
class SparseSelfAttention(StridedSelfAttention):
    r"""Self-attention dense nearby and sparse far away: $|i - j| \le k$ or $i - j \equiv 0 \pmod k$.

    The scores of both sets go into one softmax, those that are in both once: $n^2/k + 3nk$ for each head.
    That is least, $2\sqrt 3 \, n^{3/2}$, for k about $\sqrt{n/3}$.

    Args:
        heads: how many.
        head_size: of each.
        stride: k, at least 1.
        causal: whether a place sees none after it.
        reference: whether to compute all $n^2$ scores and mask them: the same result, slowly, for tests.

    Call arguments:
        inputs: shape (batch, n, features), any n.
        mask: Boolean, shape (batch, n), false for padding, which no place sees; Keras passes it.

    Returns:
        The shape of the inputs, with their mask. A place that may see nothing gets the last layer's bias.

    Raises:
        ValueError: if an argument is out of range; when called, if the mask is not of shape (batch, n).

    >>> layer = SparseSelfAttention(heads=2, head_size=4, stride=3)
    >>> tuple(layer(ops.ones((2, 10, 8))).shape)
    (2, 10, 8)

    Source: article 6853; Child et al., "Generating long sequences with sparse transformers",
    arXiv 1904.10509, the causal case.
    """

    def pattern_in_both_directions(self, length: int | Tensor) -> Tensor:
        """Return the pattern before the future is hidden."""
        return ops.logical_or(masks.band(length, self.stride), masks.strided(length, self.stride))

    def attend_in_blocks(self, queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor) -> Tensor:
        """Return the results, shape (batch, heads, c, r, size)."""
        distances = ops.abs(_distances_to_neighbours(self.stride, self.causal))
        # The strided set has the distances 0 and k already.
        near = ops.logical_and(distances > 0, distances < self.stride)
        return _softmax_sum(
            _local_set(queries, keys, values, valid, near, self.causal),
            _strided_set(queries, keys, values, valid, self.causal),
        )


def _to_blocks(x: Tensor, size: int) -> Tensor:
    """Return shape (batch, heads, c, r, size) of (batch, heads, n, size), padded with zeros."""
    batch, heads, length, features = ops.shape(x)
    x = ops.pad(x, [[0, 0], [0, 0], [0, -length % size], [0, 0]])
    return ops.reshape(x, (batch, heads, -(-length // size), size, features))


def _from_blocks(x: Tensor, length: int | Tensor) -> Tensor:
    """Return shape (batch, heads, length, size) of (batch, heads, c, r, size)."""
    batch, heads, blocks, size, features = ops.shape(x)
    return ops.reshape(x, (batch, heads, blocks * size, features))[:, :, :length]


def _beside(x: Tensor, causal: bool) -> Tensor:
    """Return each block with the one before it and, unless causal, the one after it: 3r or 2r places."""
    after = 0 if causal else 1
    blocks = ops.shape(x)[2]
    x = ops.pad(x, [[0, 0], [0, 0], [1, after], [0, 0], [0, 0]])
    return ops.concatenate([x[:, :, shift : shift + blocks] for shift in range(2 + after)], axis=3)


def _distances_to_neighbours(size: int, causal: bool) -> Tensor:
    """Return i - j for the places of a block and those of `_beside`; what is hidden is far away."""
    count = 2 if causal else 3
    distances = ops.expand_dims(ops.arange(size), 1) - (ops.arange(count * size) - size)
    return ops.where(distances < 0, 2 * size, distances) if causal else distances


class _Set(NamedTuple):
    """Keys that each query sees: scores, -inf where masked, and what to do with their weights."""

    scores: Tensor  # float32 at least, keys on the last axis
    sum_values: Callable[[Tensor], Tensor]  # from weights to (batch, heads, c, r, size)
    turn: Callable[[Tensor], Tensor]  # between the axes of the scores before the last, and c, r


def _local_set(
    queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor, near: Tensor, causal: bool
) -> _Set:
    """Return the set of the places beside, with scores of shape (batch, heads, c, r, places beside)."""
    seen = ops.logical_and(ops.swapaxes(_beside(valid, causal), 3, 4), near)
    scores = at_least_float32(ops.einsum("bhcrd,bhcjd->bhcrj", queries, _beside(keys, causal)))
    values = at_least_float32(_beside(values, causal))
    return _Set(
        ops.where(seen, scores, -math.inf),
        lambda weights: ops.einsum("bhcrj,bhcjd->bhcrd", weights, values),
        lambda x: x,
    )


def _strided_set(queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor, causal: bool) -> _Set:
    """Return the set of the places in step, with scores of shape (batch, heads, r, c, c of the key).

    The products are taken for each r. To put c before r would copy the scores, so the few numbers that both
    sets share are turned instead.
    """
    seen = ops.transpose(valid, (0, 1, 3, 4, 2))
    if causal:
        seen = ops.logical_and(seen, masks.causal(ops.shape(keys)[2]))
    scores = at_least_float32(ops.einsum("bhcrd,bhjrd->bhrcj", queries, keys))
    values = at_least_float32(values)
    return _Set(
        ops.where(seen, scores, -math.inf),
        lambda weights: ops.einsum("bhrcj,bhjrd->bhcrd", weights, values),
        lambda x: ops.swapaxes(x, 2, 3),
    )


def _softmax_sum(*sets: _Set) -> Tensor:
    """Return the values summed by one softmax over all sets, shape (batch, heads, c, r, size).

    It is `masks.apply` without the copies that one array of all scores, and of all weights, would be: the
    sums of the values are divided, not the weights.
    """
    maxima = [chosen.turn(ops.max(chosen.scores, axis=-1, keepdims=True)) for chosen in sets]
    largest = ops.stop_gradient(functools.reduce(ops.maximum, maxima))
    largest = ops.where(largest == -math.inf, 0, largest)
    weights = [ops.exp(chosen.scores - chosen.turn(largest)) for chosen in sets]
    pairs = list(zip(sets, weights, strict=True))
    total = sum(chosen.turn(ops.sum(weight, axis=-1, keepdims=True)) for chosen, weight in pairs)
    return sum(chosen.sum_values(weight) for chosen, weight in pairs) / ops.where(total == 0, 1, total)
