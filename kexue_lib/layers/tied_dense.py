"""One matrix in two layers (article 6985)."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from kexue_lib.layers.common import Shape, Tensor, registered
from kexue_lib.validation import require


@registered
class TiedDense(keras.layers.Layer):
    r"""Scores for the words of an embedding, $\sigma(E h + b)$: a dense layer on the embedding's own matrix.

    $E$, shape (words, size), is looked up in each call. Transposing it once, when the layer is made, copies
    it: the copy neither follows the embedding nor trains it. Keras' `ReversibleEmbedding` does the same as
    this layer, without a bias.

    The tie holds after `model.save` and `keras.saving.load_model`, and in `copy.deepcopy(model)`, which goes
    the same way. `keras.models.clone_model`, `Model.from_config` and `to_json` rebuild every layer by
    itself: there the embedding and this layer come apart, and the parameters grow by a matrix. So they do
    where `kexue_lib.surgery.replace_layer` replaces the embedding: replace this layer, too.

    Args:
        embedding: the `keras.layers.Embedding` whose matrix it is, called before in the same model.
        use_bias: whether to add a bias $b$ of its own.
        activation: $\sigma$, a name or function as Keras takes it; None for the scores themselves.

    Call arguments:
        inputs: hidden states, shape (..., size).

    Returns:
        Shape (..., words), with the mask of the inputs.

    Raises:
        ValueError: if `embedding` is no embedding; when called, if the last axis of the inputs is not the
            embedding's.

    >>> embedding = keras.layers.Embedding(5, 3)
    >>> tokens = keras.Input((None,), dtype="int32")
    >>> model = keras.Model(tokens, TiedDense(embedding)(embedding(tokens)))
    >>> model.output_shape, model.count_params()  # 5 * 3 weights and 5 biases
    ((None, None, 5), 20)

    Source: article 6985; Press and Wolf, "Using the output embedding to improve language models",
    arXiv 1608.05859.
    """

    def __init__(
        self,
        embedding: keras.layers.Embedding,
        use_bias: bool = True,
        activation: str | Callable[[Tensor], Tensor] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        is_embedding = isinstance(embedding, keras.layers.Embedding)
        require(
            is_embedding, "embedding", embedding, "a keras.layers.Embedding, not its output or its matrix"
        )
        self.embedding = embedding
        self.use_bias = use_bias
        self.activation = keras.activations.get(activation)
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        """Create the bias, shape (words,)."""
        size = self.embedding.output_dim
        fits = input_shape[-1] == size
        require(fits, "inputs", f"shape {tuple(input_shape)}", f"as wide as the embedding, {size}")
        if not self.embedding.built:
            self.embedding.build()
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.embedding.input_dim,), initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        """Return the scores, shape (..., words)."""
        scores = ops.matmul(inputs, ops.transpose(self.embedding.embeddings))
        scores = ops.cast(scores, self.compute_dtype)  # on PyTorch, Keras' product of float64 is float32
        return self.activation(scores + self.bias if self.use_bias else scores)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (..., words)."""
        return (*input_shape[:-1], self.embedding.input_dim)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "embedding": keras.saving.serialize_keras_object(self.embedding),
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
        }

    @classmethod
    def from_config(cls, config: dict) -> TiedDense:
        """Return the layer; while a model is loaded, with the embedding that the model has."""
        embedding = keras.saving.deserialize_keras_object(config["embedding"])
        return cls(**{**config, "embedding": embedding})
