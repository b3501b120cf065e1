"""Attention as the language models of the book need it (articles 6853, 7115 and 7292)."""

from __future__ import annotations

import keras
from keras import ops

from kexue_lib import masks
from kexue_lib.layers.common import Shape, Tensor, from_heads, mask_of_steps, registered, to_heads
from kexue_lib.layers.rotary import rotate
from kexue_lib.precision import at_least_float32
from kexue_lib.validation import require, require_integer, require_real


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    r"""Return attention computed in full, $\mathrm{softmax}(QK^\top + B)\,V$ over what the mask allows.

    Products are taken in the dtype of what is multiplied, the softmax in float32 at least. A query that may
    see nothing gets 0.

    Args:
        queries: shape (batch, heads, queries, size), scaled already.
        keys: shape (batch, heads, keys, size).
        values: shape (batch, heads, keys, size).
        mask: Boolean, broadcast to (batch, heads, queries, keys).
        bias: B, added to the scores; broadcast likewise.

    Returns:
        Shape (batch, heads, queries, size), of the dtype of the values.

    Raises:
        ValueError: if the mask does not broadcast to the shape of the scores.

    >>> row = ops.reshape(ops.convert_to_tensor([1.0, 2.0, 4.0]), (1, 1, 3, 1))
    >>> averages = attend(0 * row, row, row, masks.causal(3))
    >>> ops.convert_to_numpy(averages).round(3).flatten().tolist()
    [1.0, 1.5, 2.3329999446868896]
    """
    weights = attention_weights(queries, keys, mask, bias)
    return ops.einsum("bhqk,bhkd->bhqd", weights, values)


def attention_weights(queries: Tensor, keys: Tensor, mask: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Return the weights of `attend`, shape (batch, heads, queries, keys), of the dtype of the queries."""
    scores = at_least_float32(ops.einsum("bhqd,bhkd->bhqk", queries, keys))
    return ops.cast(masks.apply(scores + ops.cast(bias, scores.dtype), mask), queries.dtype)


def of_keys(mask: Tensor) -> Tensor:
    """Return a mask of keys, shape (batch, keys), with the axes of heads and queries."""
    return ops.expand_dims(mask, (1, 2))


@registered
class MultiHeadAttention(keras.layers.Layer):
    r"""Attention of queries to values, with what BERT, GPT, T5 and RoFormer put around it.

    $$\mathrm{softmax}\Big(\frac{QK^\top}{\sqrt{d}} + B\Big)\,V$$

    for each head, with $Q$, $K$, $V$ of size $d$ from dense layers, and a dense layer over all heads after
    it. Keras' own layer has neither a bias of the scores nor rotary positions nor a cache.

    With a `cache` the layer generates step by step: it writes the keys and values of the call from
    `cache_index` on and lets the queries see all that is written. `empty_cache` makes one, the first call may
    write a whole prompt, and a compiled step serves every index, for no shape changes.

    Args:
        heads: how many.
        head_size: $d$, of each.
        output_size: of the last dense layer; that of the queries if None.
        use_bias: whether the four dense layers have one; T5's have not.
        scale: whether the scores are divided by $\sqrt d$; T5's are not.
        causal: whether a query sees nothing behind its own place.
        rotary: whether queries and keys are turned by their places, see `rotate`; needs an even `head_size`.
        dropout: the share of weights that is dropped in training.

    Call arguments:
        query: shape (batch, queries, features).
        value: what is attended to, shape (batch, keys, features); the query itself for self-attention.
        value_mask: Boolean, shape (batch, keys), false for padding; Keras passes the one that the value
            carries. Not with a cache, which would not remember it: say it in `attention_mask`, every time.
        attention_mask: Boolean, broadcast to (batch, heads, queries, keys); see `kexue_lib.masks`. A mask
            of shape (batch, queries, keys) is for all heads.
        bias: $B$, broadcast to the same shape; see `RelativeBias`.
        cache: shape (batch, 2, heads, places, head_size). There are then as many keys as places.
        cache_index: the place of the first query, a whole number or a scalar tensor. A tensor is not checked:
            behind the end of the cache TensorFlow and JAX write over its last places.

    Returns:
        Shape (batch, queries, output_size), with the mask of the query; with a cache also the new cache. A
        query that may see nothing gets the bias of the last dense layer.

    Raises:
        ValueError: if an argument is out of range; when called with a cache and a `value_mask`, with only
            one of cache and `cache_index`, or with more queries than the cache has places left; if a mask
            does not have the shape it should.

    >>> inputs = ops.ones((2, 5, 8))
    >>> layer = MultiHeadAttention(heads=2, head_size=4, causal=True)
    >>> tuple(layer(inputs, inputs).shape)
    (2, 5, 8)
    >>> cache = layer.empty_cache(batch=2, places=10)
    >>> outputs, cache = layer(inputs, inputs, cache=cache, cache_index=0)

    Source: Vaswani et al., arXiv 1706.03762; T5, arXiv 1910.10683; RoFormer, arXiv 2104.09864.
    """

    def __init__(
        self,
        heads: int,
        head_size: int,
        output_size: int | None = None,
        use_bias: bool = True,
        scale: bool = True,
        causal: bool = False,
        rotary: bool = False,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.heads = require_integer("heads", heads, minimum=1)
        self.head_size = require_integer("head_size", head_size, minimum=1)
        require(not rotary or head_size % 2 == 0, "head_size", head_size, "even with rotary positions")
        is_default = output_size is None
        self.output_size = None if is_default else require_integer("output_size", output_size, minimum=1)
        self.use_bias, self.scale, self.causal, self.rotary = use_bias, scale, causal, rotary
        self.dropout = require_real("dropout", dropout, minimum=0)
        require(self.dropout < 1, "dropout", dropout, "below 1")
        self.supports_masking = True

    def build(self, query_shape: Shape, value_shape: Shape) -> None:
        """Create the dense layers."""
        settings = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.query_dense = to_heads(self.heads, self.head_size, name="query", **settings)
        self.key_dense = to_heads(self.heads, self.head_size, name="key", **settings)
        self.value_dense = to_heads(self.heads, self.head_size, name="value", **settings)
        self.output_dense = from_heads(self.output_size or query_shape[-1], name="output", **settings)
        self.dropout_layer = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)
        self.query_dense.build(query_shape)
        self.key_dense.build(value_shape)
        self.value_dense.build(value_shape)
        self.output_dense.build((None, self.heads, None, self.head_size))

    def call(
        self,
        query: Tensor,
        value: Tensor,
        value_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        bias: Tensor | None = None,
        cache: Tensor | None = None,
        cache_index: int | Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the outputs, shape (batch, queries, output_size); with a cache, also the new cache."""
        self._check_cache(query, value_mask, cache, cache_index)
        value_mask = None if value_mask is None else mask_of_steps(value_mask, value, "value_mask")
        index = 0 if cache is None else cache_index
        queries, keys, values = self.query_dense(query), self.key_dense(value), self.value_dense(value)
        if self.rotary:
            queries, keys = rotate(queries, index), rotate(keys, index)
        if self.scale:
            queries = queries * self.head_size**-0.5
        if cache is not None:
            cache = ops.slice_update(cache, (0, 0, 0, index, 0), ops.stack([keys, values], axis=1))
            keys, values = cache[:, 0], cache[:, 1]
        weights = attention_weights(
            queries,
            keys,
            self._mask(ops.shape(queries)[2], ops.shape(keys)[2], value_mask, attention_mask, cache_index),
            0.0 if bias is None else bias,
        )
        weights = self.dropout_layer(weights, training=training)
        outputs = self.output_dense(ops.einsum("bhqk,bhkd->bhqd", weights, values))
        return outputs if cache is None else (outputs, cache)

    def _check_cache(
        self,
        query: Tensor,
        value_mask: Tensor | None,
        cache: Tensor | None,
        cache_index: int | Tensor | None,
    ) -> None:
        is_index = (cache is None) == (cache_index is None)
        require(is_index, "cache_index", cache_index, "given with a cache, and only with one")
        is_alone = cache is None or value_mask is None
        require(is_alone, "value_mask", "a mask", "None with a cache, which forgets it; use attention_mask")
        if isinstance(cache_index, int):
            queries, places = query.shape[1] or 1, cache.shape[3]
            has_room = cache_index >= 0 and (places is None or cache_index + queries <= places)
            wanted = f"a place from which {queries} more are among the {places} of the cache"
            require(has_room, "cache_index", cache_index, wanted)

    def _mask(
        self,
        queries: int | Tensor,
        keys: int | Tensor,
        value_mask: Tensor | None,
        attention_mask: Tensor | None,
        cache_index: int | Tensor | None,
    ) -> Tensor:
        """Return all masks in one, broadcast to (batch, heads, queries, keys)."""
        mask = ops.ones((1, 1, 1, 1), dtype="bool")
        if self.causal:
            offset = 0 if cache_index is None else cache_index
            mask = ops.logical_and(mask, masks.causal(queries, keys, offset))
        if cache_index is not None:  # what is written so far
            mask = ops.logical_and(mask, ops.arange(keys) < cache_index + queries)
        if value_mask is not None:
            mask = ops.logical_and(mask, of_keys(value_mask))
        if attention_mask is not None:
            attention_mask = ops.convert_to_tensor(attention_mask)
            if len(attention_mask.shape) == 3:
                attention_mask = ops.expand_dims(attention_mask, 1)
            mask = ops.logical_and(mask, attention_mask)
        return mask

    def empty_cache(self, batch: int, places: int) -> Tensor:
        """Return a cache of zeros, shape (batch, 2, heads, places, head_size)."""
        return ops.zeros((batch, 2, self.heads, places, self.head_size), dtype=self.compute_dtype)

    def compute_output_shape(
        self, query_shape: Shape, value_shape: Shape, cache_shape: Shape | None = None
    ) -> Shape | tuple[Shape, Shape]:
        """Return (batch, queries, output_size); with a cache, also its shape."""
        outputs = (*query_shape[:-1], self.output_size or query_shape[-1])
        return outputs if cache_shape is None else (outputs, tuple(cache_shape))

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "head_size": self.head_size,
            "output_size": self.output_size,
            "use_bias": self.use_bias,
            "scale": self.scale,
            "causal": self.causal,
            "rotary": self.rotary,
            "dropout": self.dropout,
        }
