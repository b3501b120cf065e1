"""Layers that Keras does not have: pooling that heeds the mask, a loss of centres, a tied dense layer.

From three articles on writing Keras: 5765 (a layer that carries its own loss), 6810 (masks) and 6985 (one
matrix in two layers). The masked functions choose with `where` what counts. The older way, subtracting 1e10
from what is masked, is NaN in float16, where 1e10 is infinite and 0 times infinity is not a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kexue_lib.precision import at_least_float32
from kexue_lib.validation import fits, require, require_integer, require_real

Tensor = Any  # of the backend, symbolic, or what the backend converts
Shape = tuple[int | None, ...]

registered = keras.saving.register_keras_serializable(package="kexue")


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

    A logit of -inf counts as masked. What stands at masked entries changes neither the result nor a gradient.

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
    logits, mask = _as_float(logits), _as_bool(mask)
    shapes = f"shape {tuple(mask.shape)} for logits of shape {tuple(logits.shape)}"
    require(fits(mask.shape, logits.shape, broadcast=True), "mask", shapes, "broadcastable to the logits")
    logits = ops.where(mask, logits, -math.inf)
    possible = logits != -math.inf
    # The softmax of a row of -inf is NaN, and so is its gradient, even where the result is not used.
    weights = ops.softmax(ops.where(ops.any(possible, axis=-1, keepdims=True), logits, 0), axis=-1)
    return ops.where(possible, weights, 0)


def _steps(inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and mask as tensors, the mask with as many axes as the inputs."""
    inputs, mask = _as_float(inputs), _as_bool(mask)
    rank = len(inputs.shape)
    is_mask = len(mask.shape) == 2 and fits(mask.shape, inputs.shape[:2])
    shapes = f"shape {tuple(mask.shape)} for inputs of shape {tuple(inputs.shape)}"
    require(is_mask, "mask", shapes, "of shape (batch, time), the first two axes of the inputs")
    return inputs, ops.expand_dims(mask, axis=tuple(range(2, rank))) if rank > 2 else mask


def _as_bool(mask: Tensor) -> Tensor:
    return ops.cast(ops.convert_to_tensor(mask), "bool")


def _as_float(tensor: Tensor) -> Tensor:
    tensor = ops.convert_to_tensor(tensor)
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))
    return tensor if is_float else ops.cast(tensor, keras.config.floatx())


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
class CenterLoss(keras.layers.Layer):
    r"""Pulls the features of each class together, by a loss that it adds to the model's.

    $$\frac{\lambda}{n} \sum_{i=1}^n \|f_i - c_{y_i}\|^2$$

    The centres $c$ are weights, trained with the rest of the model from 0 on. The features pass unchanged;
    the layer that classifies comes after it. The loss is computed in float32 at least.

    Args:
        classes: the number of classes.
        weight: $\lambda$, not negative.

    Call arguments:
        inputs: a list of the features, shape (batch, features), and the labels, whole numbers in
            0 … classes - 1 of shape (batch,) or (batch, 1). Another number makes the loss NaN.

    Returns:
        The features.

    Raises:
        ValueError: if the number of classes or the weight is out of range; when called, if the inputs are not
            such a list or the labels are not of an integer type. (A `keras.Input` is float32 unless told.)

    >>> layer = CenterLoss(classes=2, weight=0.5)
    >>> features, labels = ops.convert_to_tensor([[1.0, 2.0], [0.0, -1.0]]), ops.convert_to_tensor([1, 0])
    >>> _ = layer([features, labels])  # squared distances from 0: 5 and 1
    >>> float(ops.convert_to_numpy(layer.losses[0]))
    1.5

    Source: article 5765; Wen et al., "A discriminative feature learning approach for deep face recognition",
    ECCV 2016, who move the centres by a rule of their own.
    """

    def __init__(self, classes: int, weight: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.classes = require_integer("classes", classes, minimum=1)
        self.weight = require_real("weight", weight, minimum=0)

    def build(self, input_shape: list[Shape]) -> None:
        """Create the centres, shape (classes, features)."""
        ranks = [len(shape) if isinstance(shape, list | tuple) else 0 for shape in input_shape]
        is_pair = ranks in ([2, 1], [2, 2]) and input_shape[1][1:] in ((), (1,), [], [1])
        wanted = "features (batch, size) and labels (batch,) or (batch, 1)"
        require(is_pair, "inputs", f"shapes {input_shape}", wanted)
        # In half precision a centre would stop moving: small steps are lost in its rounding.
        self.centers = self.add_weight(
            shape=(self.classes, input_shape[0][1]), initializer="zeros", autocast=False, name="centers"
        )

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Add the loss and return the features, shape (batch, features)."""
        features, labels = inputs
        dtype = keras.backend.standardize_dtype(labels.dtype)
        require(keras.backend.is_int_dtype(dtype), "labels", f"dtype {dtype}", "of an integer type")
        labels = ops.reshape(labels, (-1,))
        known = ops.logical_and(labels >= 0, labels < self.classes)
        # The product makes the gradient dense. On TensorFlow the rows of a lookup reach the optimizer one by
        # one; Adam squares them before it sums, and its step would be too long by the root of their number.
        centers = ops.take(1.0 * self.centers, ops.where(known, labels, 0), axis=0)
        distances = ops.sum(ops.square(at_least_float32(features) - at_least_float32(centers)), axis=-1)
        self.add_loss(self.weight * ops.mean(ops.where(known, distances, math.nan)))
        return features

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """Return the shape of the features."""
        return tuple(input_shape[0])

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "classes": self.classes, "weight": self.weight}


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
