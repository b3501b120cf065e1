"""Attention whose scores do not compare tokens with each other (article 7430)."""

from __future__ import annotations

import math

import keras
from keras import ops

from kexue_lib import masks
from kexue_lib.layers.attention import of_keys
from kexue_lib.layers.common import (
    Shape,
    Tensor,
    einsum_dense,
    from_heads,
    mask_of_steps,
    registered,
    to_heads,
)
from kexue_lib.validation import require, require_integer


@registered
class SynthesizerAttention(keras.layers.Layer):
    r"""Self-attention $\mathrm{softmax}(B)\,XW$ with scores $B$ of another kind, for each head.

    | kind | scores $B$ |
    |---|---|
    | standard | $XW_q W_k^\top X^\top / \sqrt d$, as ever |
    | dense | $\mathrm{relu}(XW_1 + b_1)\,W_2 + b_2$, a token's own opinion about every place |
    | random | a trained matrix, the same for all inputs |
    | fixed_random | the same, drawn once and not trained |
    | factorised_dense | two dense ones with $a$ and $b$ columns, $B_{i,\,pb+q} = F_{i,p}\,G_{i,q}$ |
    | factorised_random | $R_1 R_2^\top$ of trained matrices with `rank` columns |

    Kinds joined by "+", as "random+standard", are mixed: $B = \sum_i \alpha_i B_i$, where $\alpha$ is the
    softmax of trained numbers, equal at the start. The scores of the random kinds start with variance 1.

    $B$ is made for `length` places, and cut to those that there are. Column j of factorised_dense takes place
    j // b of the one and j % b of the other, with $a = \lceil\sqrt{\text{length}}\rceil$ and b large enough:
    so no two columns are the same. Taking j % a and j % b makes only as many as their least common multiple.

    Args:
        kind: one of the table, or several.
        heads: how many.
        head_size: d, of each; the hidden size of the dense kinds as well.
        length: the largest number of places.
        rank: of factorised_random.
        causal: whether a place sees none after it.

    Call arguments:
        inputs: shape (batch, n, features), n at most `length`.
        mask: Boolean, shape (batch, n), false for padding, which no place sees; Keras passes it.

    Returns:
        The shape of the inputs, with their mask.

    Raises:
        ValueError: if an argument is out of range; when called, if the inputs are longer than `length`, or
            the mask is not of shape (batch, n).

    >>> layer = SynthesizerAttention("random+standard", heads=2, head_size=4, length=10)
    >>> inputs = ops.ones((3, 7, 8))
    >>> tuple(layer(inputs).shape), tuple(layer.scores(inputs).shape)
    ((3, 7, 8), (3, 2, 7, 7))
    >>> ops.convert_to_numpy(layer.proportions()).tolist()
    [0.5, 0.5]

    Source: article 7430; Tay et al., "Synthesizer: rethinking self-attention", arXiv 2005.00743.
    """

    KINDS = ("standard", "dense", "random", "fixed_random", "factorised_dense", "factorised_random")

    def __init__(
        self,
        kind: str,
        heads: int,
        head_size: int,
        length: int,
        rank: int = 8,
        causal: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        kinds = kind.split("+") if isinstance(kind, str) else []
        is_known = bool(kinds) and set(kinds) <= set(self.KINDS) and len(set(kinds)) == len(kinds)
        require(is_known, "kind", kind, f"one of {', '.join(self.KINDS)}, or different ones joined by '+'")
        self.kind = kind
        self.heads = require_integer("heads", heads, minimum=1)
        self.head_size = require_integer("head_size", head_size, minimum=1)
        self.length = require_integer("length", length, minimum=1)
        self.rank = require_integer("rank", rank, minimum=1)
        self.causal = causal
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: Shape) -> None:
        """Create the weights of the kinds, the proportions of a mixture, and the two dense layers."""
        self._check_length(input_shape[1])
        self.parts = [
            _PARTS[kind](
                self.heads, self.head_size, self.length, self.rank, dtype=self.dtype_policy, name=kind
            )
            for kind in self.kind.split("+")
        ]
        self.value_dense = to_heads(self.heads, self.head_size, name="value", dtype=self.dtype_policy)
        self.output_dense = from_heads(input_shape[-1], name="output", dtype=self.dtype_policy)
        for layer in (*self.parts, self.value_dense):
            layer.build(input_shape)
        self.output_dense.build((None, self.heads, None, self.head_size))
        if len(self.parts) > 1:
            self.mixture = self.add_weight(shape=(len(self.parts),), initializer="zeros", name="mixture")

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs, of the shape of the inputs."""
        self._check_length(inputs.shape[1])
        scores = self.scores(inputs)
        batch, length = ops.shape(inputs)[:2]
        seen = masks.causal(length) if self.causal else ops.ones((length, length), dtype="bool")
        if mask is not None:
            seen = ops.logical_and(seen, of_keys(mask_of_steps(mask, inputs)))
            # The random kinds have one matrix for the whole batch; the mask has one for each example.
            scores = scores + ops.zeros((batch, 1, 1, 1), dtype=scores.dtype)
        weights = ops.broadcast_to(masks.apply(scores, seen), (batch, self.heads, length, length))
        return self.output_dense(ops.einsum("bhqk,bhkd->bhqd", weights, self.value_dense(inputs)))

    def scores(self, inputs: Tensor) -> Tensor:
        """Return B, shape (batch, heads, n, n); the batch is 1 where B does not depend on the inputs."""
        scores = [part(inputs) for part in self.parts]
        if len(scores) == 1:
            return scores[0]
        proportions = self.proportions()
        return sum(proportions[index] * part for index, part in enumerate(scores))

    def proportions(self) -> Tensor:
        r"""Return $\alpha$ of a mixture, shape (kinds,), in the order of their names."""
        return ops.softmax(ops.convert_to_tensor(self.mixture))

    def _check_length(self, length: int | None) -> None:
        fits = length is None or length <= self.length
        require(fits, "inputs", f"length {length}", f"no longer than {self.length} places")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the inputs."""
        return tuple(input_shape)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "kind": self.kind,
            "heads": self.heads,
            "head_size": self.head_size,
            "length": self.length,
            "rank": self.rank,
            "causal": self.causal,
        }


class _Scores(keras.layers.Layer):
    """One kind of scores: from inputs (batch, n, features) to (batch or 1, heads, n, n)."""

    def __init__(self, heads: int, head_size: int, length: int, rank: int, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.head_size, self.length, self.rank = heads, head_size, length, rank
        self.supports_masking = True

    def _opinions(self, name: str, count: int, input_shape: Shape) -> list[keras.layers.Layer]:
        """Return two dense layers, by way of `head_size` to `count` columns."""
        settings = {"dtype": self.dtype_policy}
        hidden = to_heads(self.heads, self.head_size, activation="relu", name=f"{name}_hidden", **settings)
        hidden.build(input_shape)
        outputs = einsum_dense("bhtk,hkn->bhtn", (self.heads, None, count), "hn", name=name, **settings)
        outputs.build((None, self.heads, None, self.head_size))
        return [hidden, outputs]

    def _matrix(self, name: str, columns: int, deviation: float = 1.0, trainable: bool = True) -> Tensor:
        return self.add_weight(
            shape=(self.heads, self.length, columns),
            initializer=keras.initializers.RandomNormal(stddev=deviation),
            trainable=trainable,
            name=name,
        )


class _Standard(_Scores):
    def build(self, input_shape: Shape) -> None:
        self.query, self.key = (
            to_heads(self.heads, self.head_size, name=name, dtype=self.dtype_policy)
            for name in ("query", "key")
        )
        self.query.build(input_shape)
        self.key.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        queries = self.query(inputs) * self.head_size**-0.5
        return ops.einsum("bhqd,bhkd->bhqk", queries, self.key(inputs))


class _Dense(_Scores):
    def build(self, input_shape: Shape) -> None:
        self.opinions = self._opinions("opinions", self.length, input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        hidden, outputs = self.opinions
        return outputs(hidden(inputs))[..., : ops.shape(inputs)[1]]


class _FactorisedDense(_Scores):
    def build(self, input_shape: Shape) -> None:
        count = math.isqrt(self.length - 1) + 1
        self.groups = self._opinions("groups", count, input_shape)
        self.members = self._opinions("members", -(-self.length // count), input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        groups, members = (outputs(hidden(inputs)) for hidden, outputs in (self.groups, self.members))
        products = ops.expand_dims(groups, 4) * ops.expand_dims(members, 3)
        batch, heads, length, count, size = ops.shape(products)
        return ops.reshape(products, (batch, heads, length, count * size))[..., :length]


class _Random(_Scores):
    is_trained = True

    def build(self, input_shape: Shape) -> None:
        self.matrix = self._matrix("matrix", self.length, trainable=self.is_trained)

    def call(self, inputs: Tensor) -> Tensor:
        length = ops.shape(inputs)[1]
        return ops.expand_dims(ops.convert_to_tensor(self.matrix)[:, :length, :length], 0)


class _FixedRandom(_Random):
    is_trained = False


class _FactorisedRandom(_Scores):
    def build(self, input_shape: Shape) -> None:
        deviation = self.rank**-0.25
        self.left = self._matrix("left", self.rank, deviation)
        self.right = self._matrix("right", self.rank, deviation)

    def call(self, inputs: Tensor) -> Tensor:
        length = ops.shape(inputs)[1]
        left, right = (ops.convert_to_tensor(matrix)[:, :length] for matrix in (self.left, self.right))
        return ops.expand_dims(ops.einsum("hqr,hkr->hqk", left, right), 0)


_PARTS = {
    "standard": _Standard,
    "dense": _Dense,
    "random": _Random,
    "fixed_random": _FixedRandom,
    "factorised_dense": _FactorisedDense,
    "factorised_random": _FactorisedRandom,
}
