"""Positions told by a bias of the scores (T5)."""

from __future__ import annotations

import math

import keras
from keras import ops

from kexue_lib.layers.common import Shape, Tensor, registered
from kexue_lib.validation import require, require_integer


@registered
class RelativeBias(keras.layers.Layer):
    """A learned bias for the scores of attention, by the distance from the query to the key.

    Distances share a number for each bucket: small ones have a bucket of their own, larger ones share it, in
    equal steps of their logarithm up to `furthest`; the last of these steps takes what is beyond as well. One
    such layer serves all attention layers of an encoder: pass its output to `MultiHeadAttention` as `bias`.

    Args:
        heads: of the attention.
        buckets: how many; of a bidirectional bias one half is for the keys after the query. At least 2 (4 if
            bidirectional), and even.
        furthest: where the logarithmic steps would end; larger than `buckets`. By default the last of them
            begins at 91.
        bidirectional: False for a decoder, where keys after the query share the bucket of distance 0.

    Call arguments:
        positions: whole numbers, the places of the queries, shape (batch, queries). A batch of 1 will do.
        key_positions: the places of the keys, shape (batch, keys); those of the queries if not given.

    Returns:
        Shape (batch, heads, queries, keys).

    Raises:
        ValueError: if an argument is out of range; when called, if the positions do not have two axes.

    >>> places = ops.expand_dims(ops.arange(5), 0)
    >>> tuple(RelativeBias(heads=2)(places).shape)
    (1, 2, 5, 5)

    Source: Raffel et al., "Exploring the limits of transfer learning", arXiv 1910.10683.
    """

    def __init__(
        self, heads: int, buckets: int = 32, furthest: int = 128, bidirectional: bool = True, **kwargs
    ):
        super().__init__(**kwargs)
        self.heads = require_integer("heads", heads, minimum=1)
        self.buckets = require_integer("buckets", buckets, minimum=4 if bidirectional else 2)
        require(buckets % 2 == 0, "buckets", buckets, "even")
        self.furthest = require_integer("furthest", furthest, minimum=buckets + 1)
        self.bidirectional = bidirectional
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, positions_shape: Shape, key_positions_shape: Shape | None = None) -> None:
        """Create the biases, shape (buckets, heads)."""
        self.biases = self.add_weight(
            shape=(self.buckets, self.heads), initializer="glorot_uniform", name="biases"
        )

    def call(self, positions: Tensor, key_positions: Tensor | None = None) -> Tensor:
        """Return the biases, shape (batch, heads, queries, keys)."""
        keys = positions if key_positions is None else key_positions
        distances = ops.expand_dims(keys, 1) - ops.expand_dims(positions, 2)
        # The product makes the gradient dense: TensorFlow's of a lookup alone would reach Adam row by row.
        biases = ops.take(1.0 * self.biases, self.bucket(distances), axis=0)
        return ops.transpose(biases, (0, 3, 1, 2))

    def bucket(self, distances: Tensor) -> Tensor:
        """Return the bucket of distances, key minus query, of any shape."""
        distances = ops.cast(distances, "int32")
        if self.bidirectional:
            count, first = self.buckets // 2, ops.where(distances > 0, self.buckets // 2, 0)
            distances = ops.abs(distances)
        else:
            count, first = self.buckets, 0
            distances = ops.maximum(-distances, 0)
        exact = count // 2
        octaves = ops.log(ops.cast(ops.maximum(distances, exact), "float32") / exact)
        steps = ops.cast(octaves / math.log(self.furthest / exact) * (count - exact), "int32")
        shared = ops.minimum(exact + steps, count - 1)
        return first + ops.where(distances < exact, distances, shared)

    def compute_output_shape(self, positions_shape: Shape, key_positions_shape: Shape | None = None) -> Shape:
        """Return (batch, heads, queries, keys)."""
        keys = positions_shape if key_positions_shape is None else key_positions_shape
        return (positions_shape[0], self.heads, positions_shape[1], keys[1])

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "buckets": self.buckets,
            "furthest": self.furthest,
            "bidirectional": self.bidirectional,
        }
