"""Losses for examples with several labels at once, from softmax cross-entropy to the ZLPR loss.

Article 7359 asks why choosing k of n labels should be harder than choosing one, and gives two answers: a
softmax over all sets of k labels, whose normaliser is an elementary symmetric polynomial, and a loss that
compares every right score with every wrong one and with a threshold of 0 (named ZLPR by Su et al., arXiv
2208.02955).

Scores ("logits") are any real numbers; -inf marks a label that cannot be. Half precision is computed in
float32.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kexue_lib.precision import at_least_float32
from kexue_lib.validation import fits, require, require_integer

Tensor = Any  # of the backend, or what it converts


def zlpr(y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return $\log(1+\sum_i t_i e^{-s_i}) + \log(1+\sum_i (1-t_i)e^{s_i})$ over the last axis.

    With hard targets a label is predicted where its score is above 0. With soft targets the loss is least at
    $t = \sigma(2s)$. (Articles 7359 and 9064.)

    Args:
        y_true: targets $t$ in [0, 1], shape (..., labels).
        y_pred: scores $s$, the same shape; -inf where a label is impossible. A target above 0 there costs
            inf.
        mask: Boolean, broadcast to the same shape; labels with False are left out of both sums, whatever
            their target and score.

    Returns:
        Loss of each example, shape (...), in float32 or the wider type of the scores.

    Raises:
        ValueError: if the shapes do not match or a target is outside [0, 1]. Inside a compiled step, where
            nothing can be raised, such a target makes the loss NaN.

    >>> round(float(zlpr([[1, 0, 0, 0, 1]], [[2, -1, 0.5, -3, 1.5]])[0]), 6)
    1.426856
    """
    scores = at_least_float32(y_pred)
    targets = ops.cast(ops.convert_to_tensor(y_true), scores.dtype)
    _require_shapes(targets, scores)
    if mask is not None:  # a label that is left out is like an impossible one
        mask = _mask(mask, scores)
        targets, scores = ops.where(mask, targets, 0), ops.where(mask, scores, -np.inf)
    valid = ops.all(ops.logical_and(targets >= 0, targets <= 1), axis=-1)
    _require_targets(valid, "in [0, 1]")
    loss = _log_one_plus(targets, -scores, targets > 0) + _log_one_plus(1 - targets, scores, targets < 1)
    return ops.where(valid, loss, np.nan)  # one NaN a row: one a label would cost half as much as the loss


def _log_one_plus(weights: Tensor, exponents: Tensor, used: Tensor) -> Tensor:
    """Return log(1 + Σ weight · e^exponent) over the used entries of the last axis, for weights in [0, 1].

    The weights stay outside of the exponentials: a logarithm less for each label, and no log(0).
    """
    exponents = ops.where(used, exponents, -np.inf)
    largest = ops.stop_gradient(ops.relu(ops.max(exponents, axis=-1, keepdims=True)))
    shift = ops.where(ops.isfinite(largest), largest, 0)  # inf - inf would hide an infinite loss
    total = ops.exp(-shift) + ops.sum(weights * ops.exp(exponents - shift), axis=-1, keepdims=True)
    return ops.squeeze(shift + ops.log(total), axis=-1)


def sparse_zlpr(positions: Tensor, y_pred: Tensor) -> Tensor:
    """Return `zlpr` for hard targets that are given as the positions of the right labels.

    Gathering the right scores and subtracting them from the sum of all of them, as is often done, loses the
    wrong ones as soon as the right scores lead by 17 in float32. Here the right labels are marked, nothing is
    subtracted.

    Args:
        positions: whole numbers in 0 … labels - 1, shape (..., any count); -1 fills up the rows of examples
            with fewer labels. A repeated position counts once.
        y_pred: scores, shape (..., labels).

    Returns:
        Loss of each example, shape (...).

    Raises:
        ValueError: if the leading shapes differ or a position is outside -1 … labels - 1. Inside a compiled
            step such a position makes the loss NaN.

    >>> round(float(sparse_zlpr([[0, 4, -1]], [[2, -1, 0.5, -3, 1.5]])[0]), 6)
    1.426856
    """
    scores = at_least_float32(y_pred)
    positions = ops.cast(positions, "int32")
    count = scores.shape[-1]
    wanted = f"of shape (..., any count) for scores of shape {tuple(scores.shape)}"
    require(fits(positions.shape, (*scores.shape[:-1], None)), "positions", tuple(positions.shape), wanted)
    within = ops.logical_and(positions >= -1, positions < count)
    _require_targets(within, f"a position in 0 … {count - 1}, or -1 to fill up")
    loss = zlpr(_marked(positions, within, count, scores), scores)
    return ops.where(ops.all(within, axis=-1), loss, np.nan)


def _marked(positions: Tensor, within: Tensor, count: int, scores: Tensor) -> Tensor:
    """Return ones at the positions of each row and zeros elsewhere, shaped like the scores."""
    # The fillers land in a column of their own, which is cut off.
    columns = ops.reshape(ops.where(ops.logical_and(within, positions >= 0), positions, count), (-1,))
    rows = ops.repeat(ops.arange(ops.size(scores) // count, dtype="int32"), ops.shape(positions)[-1])
    places = ops.stack([rows, columns], axis=-1)
    marks = ops.scatter(places, ops.ones_like(columns), (ops.size(scores) // count, count + 1))
    return ops.reshape(ops.cast(marks[:, :count] > 0, scores.dtype), ops.shape(scores))


def log_elementary_symmetric(logits: Tensor, k: int) -> Tensor:
    r"""Return $\log Z_k$, where $Z_k=\sum_{i_1<\dots<i_k} e^{s_{i_1}+\dots+s_{i_k}}$ runs over all sets of k
    scores.

    $Z_k$ is the coefficient of $x^k$ in $\prod_i(1+e^{s_i}x)$. With $\pi_i=\sigma(s_i+\tau)$ and $x=e^\tau y$
    a factor is $1+e^{s_i+\tau}$ times $(1-\pi_i)+\pi_i y$, so that for every $\tau$, with the entropy H of a
    coin,

    $$\log Z_k = \sum_i(\pi_is_i + H(\pi_i)) + \tau(\sum_i\pi_i - k) + \log P(N=k),$$

    N being the number of heads of n coins with probabilities $\pi_i$. Choose $\tau$ so that k heads are
    expected: then k is the most probable number (Darroch 1964) and $P(N=k)\ge 1/(n+1)$, whatever the scores
    are. The factors are multiplied pair by pair. Nothing is subtracted, where Newton's identities, which the
    article uses, subtract power sums and lose every digit. (Article 7359.)

    Args:
        logits: scores $s$, shape (..., n); -inf for one that cannot be chosen.
        k: size of the sets, 1 … n.

    Returns:
        Shape (...), in float32 or the wider type of the logits; -inf where fewer than k scores can be chosen.

    Raises:
        ValueError: if k is not a whole number in 1 … n.

    >>> round(float(ops.exp(log_elementary_symmetric([0.0, 0.0, 0.0, 0.0], 2))), 4)
    6.0
    """
    logits = at_least_float32(logits)
    scores = _as_columns(logits, k)
    if k == scores.shape[0]:  # no tilt makes n heads of n coins certain
        return ops.sum(logits, axis=-1)
    tilt = _tilt(scores, k)
    normaliser, probabilities = _coins(scores, tilt, k)
    return ops.reshape(normaliser + ops.log(probabilities[k]), ops.shape(logits)[:-1])


def _log_sets_up_to(logits: Tensor, k: int) -> Tensor:
    """Return log(Z_0 + … + Z_k), shape (...), for scores of shape (..., n)."""
    logits = at_least_float32(logits)
    scores = _as_columns(logits, k)
    # Without a tilt every set counts as it should; where that makes too many labels likely, k binds.
    tilt = ops.zeros_like(scores[0]) if k == scores.shape[0] else -ops.relu(-_tilt(scores, k))
    normaliser, probabilities = _coins(scores, tilt, k)
    empty_places = ops.cast(ops.arange(k, -1, -1), scores.dtype)
    total = ops.sum(probabilities * ops.exp(empty_places[:, None] * tilt), axis=0)
    return ops.reshape(normaliser + ops.log(total), ops.shape(logits)[:-1])


def _as_columns(logits: Tensor, k: int) -> Tensor:
    """Check k and return the scores with one column an example, shape (n, examples)."""
    count = logits.shape[-1]
    require_integer("k", k, minimum=1)
    require(k <= count, "k", k, f"at most the number of labels, {count}")
    return ops.transpose(ops.reshape(logits, (-1, count)))


def _tilt(scores: Tensor, k: int) -> Tensor:
    """Return τ for which Σ σ(score + τ) is k, give or take ¼, shape (examples,), for scores of shape (n,
    examples).

    The result of the caller depends on it by its rounding only, and so it has no gradient. Newton's method
    for the logarithm of the rarer side, heads or tails, from where σ(x) < e^x says that it is at most as much
    as wanted; a step that leaves the bounds found so far is replaced by their middle.
    """
    scores = ops.stop_gradient(scores)
    count = scores.shape[0]
    possible = ops.isfinite(scores)
    largest = ops.max(ops.where(possible, scores, -np.inf), axis=0)
    finite = ops.where(possible, scores, largest)
    lower = math.log(k) - ops.logsumexp(finite, axis=0)
    upper = ops.logsumexp(-finite, axis=0) - math.log(count - k)
    few = 2 * k <= count
    wanted = k if few else count - k

    def expected(tilt):
        heads, tails = ops.sigmoid(scores + tilt), ops.sigmoid(-scores - tilt)
        return ops.sum(heads if few else tails, axis=0), ops.sum(heads * tails, axis=0)

    def is_far(tilt, lower, upper, rarer, slope):
        return ops.any(ops.abs(rarer - wanted) > 0.25)

    def nearer(tilt, lower, upper, rarer, slope):
        too_low = rarer < wanted if few else rarer > wanted
        lower, upper = ops.where(too_low, tilt, lower), ops.where(too_low, upper, tilt)
        distance = (math.log(wanted) - ops.log(rarer)) * rarer / (slope + 1e-30)
        newton = tilt + (distance if few else -distance)
        is_between = ops.logical_and(newton >= lower, newton <= upper)
        tilt = ops.where(is_between, newton, (lower + upper) / 2)
        return tilt, lower, upper, *expected(tilt)

    start = lower if few else upper
    if _is_only_a_shape(scores):
        return start
    state = (start, lower, upper, *expected(start))
    return ops.stop_gradient(ops.while_loop(is_far, nearer, state, maximum_iterations=50)[0])


def _excess(heads: Tensor, tails: Tensor, k: int) -> Tensor:
    """Return Σ heads - k by the rarer side of the coins, whose sum rounds less."""
    count = heads.shape[0]
    return _sum(heads) - k if 2 * k <= count else (count - k) - _sum(tails)


def _sum(terms: Tensor) -> Tensor:
    """Sum over the first axis by halves: a thousand terms added in a row would cost float32 two digits."""
    while terms.shape[0] > 1:
        half = terms.shape[0] // 2
        terms = ops.concatenate([terms[:half] + terms[half : 2 * half], terms[2 * half :]], axis=0)
    return terms[0]


def _coins(scores: Tensor, tilt: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return log Π(1 + e^(score + τ)) - kτ, and the probabilities of 0 … k heads, shape (k + 1, examples)."""
    possible = ops.isfinite(scores)
    scores = ops.where(possible, scores, 0)
    tilted = scores + tilt
    heads = ops.where(possible, ops.sigmoid(tilted), 0)
    tails = ops.where(possible, ops.sigmoid(-tilted), 1)
    # In this form neither is the difference of large numbers: the entropy of a coin, by its distance from
    # even.
    distance = ops.abs(tilted)
    entropy = ops.log1p(ops.exp(-distance)) + distance * ops.sigmoid(-distance)
    normaliser = _sum(heads * scores + ops.where(possible, entropy, 0))
    polynomials = ops.stack([tails, heads])  # of degree 1: coefficient, factor, example
    while polynomials.shape[1] > 1:
        polynomials = _multiplied_in_pairs(polynomials, k)
    return normaliser + tilt * _excess(heads, tails, k), polynomials[:, 0]


def _multiplied_in_pairs(polynomials: Tensor, most: int) -> Tensor:
    """Multiply the first half with the second, shape (d + 1, m, examples) to (…, ⌈m/2⌉, examples)."""
    if polynomials.shape[1] % 2:  # one factor more, the polynomial 1
        one = ops.concatenate(
            [ops.ones_like(polynomials[:1, :1]), ops.zeros_like(polynomials[1:, :1])], axis=0
        )
        polynomials = ops.concatenate([polynomials, one], axis=1)
    half = polynomials.shape[1] // 2
    first, second = polynomials[:, :half], polynomials[:, half:]
    count = polynomials.shape[0]
    products = first[:, None] * second[None]  # first coefficient, second coefficient, pair, example
    # Row j belongs j places to the right. It is there if each row ends with `count` zeros, but a line takes
    # one fewer.
    padded = ops.pad(products, [(0, 0), (0, count), (0, 0), (0, 0)])
    flat = ops.reshape(padded, (count * 2 * count, half, -1))[: count * (2 * count - 1)]
    skewed = ops.reshape(flat, (count, 2 * count - 1, half, -1))
    return ops.sum(skewed[:, : most + 1], axis=0)


@keras.saving.register_keras_serializable(package="kexue")
class ZLPR(keras.losses.Loss):
    """`zlpr` as a Keras loss, mean over the examples unless `reduction` says otherwise.

    Args:
        reduction, name, dtype: as for every Keras loss.

    >>> round(float(ZLPR()([[1, 0, 0, 0, 1]], [[2, -1, 0.5, -3, 1.5]])), 6)
    1.426856
    """

    def __init__(self, reduction="sum_over_batch_size", name="zlpr", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each example, shape (...), for targets and scores of shape (..., labels)."""
        return zlpr(y_true, y_pred)


@keras.saving.register_keras_serializable(package="kexue")
class CombinatorialSoftmax(keras.losses.Loss):
    r"""Softmax cross-entropy over all sets of k labels: $\log Z_k - \sum_{j\in\text{labels}} s_j$.

    With `exact=False` it runs over all sets of at most k labels, the empty places having score 0:
    $\log\sum_{j\le k} Z_j - \sum_{j\in\text{labels}} s_j$. The article gives the empty places a score $s_0$
    of their own; only differences to it matter, so that $s_0=0$ loses nothing. `k=1` is then softmax
    cross-entropy with one class more, of score 0, and `k=n` is exactly the sum of n binary cross-entropies.
    (Article 7359.)

    Args:
        k: number of labels of an example, 1 … n.
        exact: whether every example has exactly k labels.
        reduction, name, dtype: as for every Keras loss.

    Raises:
        ValueError: if k is out of range, a target is neither 0 nor 1, or an example has another number of
        labels.
            Inside a compiled step, where nothing can be raised, such an example makes the loss NaN.

    >>> round(float(CombinatorialSoftmax(2)([[1, 0, 0, 0, 1]], [[2, -1, 0.5, -3, 1.5]])), 5)
    0.56649
    """

    def __init__(
        self, k, exact=True, reduction="sum_over_batch_size", name="combinatorial_softmax", dtype=None
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.k = require_integer("k", k, minimum=1)
        self.exact = exact

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss of each example, shape (...), for targets and scores of shape (..., labels)."""
        scores = at_least_float32(y_pred)
        targets = ops.cast(ops.convert_to_tensor(y_true), scores.dtype)
        _require_shapes(targets, scores)
        is_hard = ops.all(ops.logical_or(targets == 0, targets == 1), axis=-1)
        count = ops.sum(targets, axis=-1)
        valid = ops.logical_and(is_hard, count == self.k if self.exact else count <= self.k)
        _require_targets(
            valid, f"0 or 1, with {'exactly' if self.exact else 'at most'} {self.k} ones an example"
        )
        normaliser = (log_elementary_symmetric if self.exact else _log_sets_up_to)(scores, self.k)
        chosen = ops.sum(ops.where(targets > 0, scores, 0), axis=-1)
        # A label that cannot be costs inf, also where no set without it is left and the normaliser is -inf.
        loss = ops.where(chosen == -np.inf, np.inf, normaliser - chosen)
        return ops.where(valid, loss, np.nan)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "k": self.k, "exact": self.exact}


def _require_shapes(targets: Tensor, scores: Tensor) -> None:
    wanted = f"of the shape of the scores, {tuple(scores.shape)}"
    require(fits(targets.shape, scores.shape), "shape of y_true", tuple(targets.shape), wanted)


def _mask(mask: Tensor, scores: Tensor) -> Tensor:
    """Return the mask as a Boolean tensor that broadcasts to the scores."""
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    wanted = f"broadcastable to the scores, {tuple(scores.shape)}"
    require(fits(mask.shape, scores.shape, broadcast=True), "shape of mask", tuple(mask.shape), wanted)
    return mask


def _is_only_a_shape(tensor: Tensor) -> bool:
    """Tell PyTorch's tensors without values, on which Keras tries a loss out, and no loop would end."""
    return getattr(getattr(tensor, "device", None), "type", None) == "meta"


def _require_targets(valid: Tensor, wanted: str) -> None:
    """Raise unless all entries hold, where their values can be read: in a compiled step they cannot."""
    if _is_only_a_shape(valid):
        return
    try:
        holds = bool(ops.all(valid))
    except TypeError:  # TensorFlow and JAX refuse to make a bool of a tensor that they only trace
        return
    if not holds:
        raise ValueError(f"targets must be {wanted}")
