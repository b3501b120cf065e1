"""Who may attend to whom: masks for attention, and the softmax that heeds them (articles 6853 and 7115).

A mask is Boolean and true where a query may see a key. Those of this module are combined with
`ops.logical_and` and `ops.logical_or`: a causal band is `logical_and(band(n, width), causal(n))`. A length
may also be a scalar tensor, as `ops.shape` gives it where TensorFlow does not know it yet.
"""

from __future__ import annotations

import math
import numbers

from keras import ops

from kexue_lib.precision import Tensor, as_float, at_least_float32
from kexue_lib.validation import fits, require, require_integer


def padding(tokens: Tensor) -> Tensor:
    """Return the mask of token numbers that are padded with 0.

    The first token always counts, so that an empty text, and a decoder that starts with 0, have one to see.

    Args:
        tokens: whole numbers, shape (batch, time).

    Returns:
        Boolean, shape (batch, time).

    Raises:
        ValueError: if the tokens do not have two axes.

    >>> ops.convert_to_numpy(padding([[5, 3, 0], [0, 0, 0]])).tolist()
    [[True, True, False], [True, False, False]]
    """
    tokens = ops.convert_to_tensor(tokens)
    require(len(tokens.shape) == 2, "tokens", f"shape {tuple(tokens.shape)}", "of shape (batch, time)")
    # In two parts, for the places of a `keras.Input` of unknown length cannot be numbered.
    return ops.concatenate([ops.ones_like(tokens[:, :1], dtype="bool"), tokens[:, 1:] != 0], axis=1)


def causal(queries: int | Tensor, keys: int | Tensor | None = None, offset: int | Tensor = 0) -> Tensor:
    """Return the mask in which query i stands at place `offset` + i and sees the keys up to there.

    Args:
        queries: how many there are.
        keys: how many there are; as many as queries if not given.
        offset: the place of the first query; where keys are cached, how many came before.

    Returns:
        Boolean, shape (queries, keys).

    Raises:
        ValueError: if a number of places is not a whole number of at least 0.

    >>> ops.convert_to_numpy(causal(3)).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    >>> ops.convert_to_numpy(causal(1, 5, offset=2)).astype(int).tolist()
    [[1, 1, 1, 0, 0]]
    """
    of_queries = _places("queries", queries)
    of_keys = of_queries if keys is None else _places("keys", keys)
    return ops.expand_dims(of_queries + offset, 1) >= of_keys


def prefix(segments: Tensor) -> Tensor:
    """Return the mask of a language model that reads its prefix in both directions.

    Every token sees the whole of segment 0, those of segment 1 also the ones of segment 1 before them.

    Args:
        segments: 0 for the prefix, then 1 for what is to be generated; shape (batch, time).

    Returns:
        Boolean, shape (batch, time, time).

    Raises:
        ValueError: if the segments do not have two axes.

    >>> ops.convert_to_numpy(prefix([[0, 0, 1, 1]]))[0].astype(int).tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]

    Source: Dong et al., "Unified language model pre-training", arXiv 1905.03197.
    """
    segments = ops.cast(ops.convert_to_tensor(segments), "int32")
    require(len(segments.shape) == 2, "segments", f"shape {tuple(segments.shape)}", "of shape (batch, time)")
    order = ops.cumsum(segments, axis=1)
    return ops.expand_dims(order, 2) >= ops.expand_dims(order, 1)


def band(length: int | Tensor, width: int) -> Tensor:
    r"""Return the mask of a neighbourhood, $|i-j| \le$ width.

    Args:
        length: of the sequence.
        width: how far a token sees to either side, at least 0.

    Returns:
        Boolean, shape (length, length).

    Raises:
        ValueError: if the length or the width is not a whole number of at least 0.

    >>> ops.convert_to_numpy(band(4, width=1)).astype(int).tolist()
    [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]

    Source: article 6853.
    """
    return ops.abs(_distances(length)) <= require_integer("width", width, minimum=0)


def strided(length: int | Tensor, stride: int) -> Tensor:
    r"""Return the mask of the tokens in step with each other, $i - j \equiv 0 \pmod{\text{stride}}$.

    Args:
        length: of the sequence.
        stride: at least 1.

    Returns:
        Boolean, shape (length, length).

    Raises:
        ValueError: if the length is not a whole number of at least 0 or the stride not one of at least 1.

    >>> ops.convert_to_numpy(strided(4, stride=2)).astype(int).tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]

    Source: article 6853.
    """
    return _distances(length) % require_integer("stride", stride, minimum=1) == 0


def apply(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax along the last axis over the entries whose mask is true; the others get 0.

    A score of -inf counts as masked. What stands at masked entries changes neither the result nor a gradient.

    Args:
        scores: shape (..., keys); whole numbers are converted to Keras' default float type.
        mask: Boolean, broadcast to the shape of the scores.

    Returns:
        Shape (..., keys), of the dtype of the scores. Rows sum to 1, rows that are masked altogether are 0,
        never NaN. Half precision is computed in float32.

    Raises:
        ValueError: if the mask does not broadcast to the shape of the scores.

    >>> weights = apply([[2.0, 2.0, 5.0], [1.0, 2.0, 3.0]], [[True, True, False], [False] * 3])
    >>> ops.convert_to_numpy(weights).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]

    Source: articles 6810 and 6853.
    """
    scores, mask = as_float(scores), ops.cast(ops.convert_to_tensor(mask), "bool")
    shapes = f"shape {tuple(mask.shape)} for logits of shape {tuple(scores.shape)}"
    require(fits(mask.shape, scores.shape, broadcast=True), "mask", shapes, "broadcastable to the logits")
    possible = ops.where(mask, at_least_float32(scores), -math.inf)
    # The softmax of a row of -inf is NaN. Here it is 0 / 1. The largest score cancels, and so does its slope.
    largest = ops.stop_gradient(ops.max(possible, axis=-1, keepdims=True))
    exponentials = ops.exp(possible - ops.where(largest == -math.inf, 0, largest))
    total = ops.sum(exponentials, axis=-1, keepdims=True)
    return ops.cast(exponentials / ops.where(total == 0, 1, total), scores.dtype)


def _distances(length: int | Tensor) -> Tensor:
    """Return i - j, shape (length, length)."""
    places = _places("length", length)
    return ops.expand_dims(places, 1) - places


def _places(name: str, count: int | Tensor) -> Tensor:
    """Return 0, 1, … below a count, which is checked unless it is a tensor."""
    is_known = isinstance(count, numbers.Number)
    return ops.arange(require_integer(name, count, minimum=0) if is_known else count)
