import copy

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.autodiff import gradient
from kexue_lib.layers import (
    AttentionPooling1D,
    CenterLoss,
    MaskedGlobalMaxPooling1D,
    TiedDense,
    masked_max,
    masked_mean,
    masked_softmax,
)
from kexue_lib.surgery import replace_layer
from kexue_lib.testing import check_layer

IS_JAX, IS_TORCH = (keras.backend.backend() == name for name in ("jax", "torch"))
DTYPES = ["float16", "bfloat16", "float32", *([] if IS_JAX else ["float64"])]  # of JAX, behind a switch
JIT_COMPILE = [False] if IS_TORCH else [False, True]

VALUES = np.array([1.0, 0.0, 3.0, 4.0, 5.0])
PADDED = np.array([[1.0, 0.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]])
MASK = np.array([[True] * 5 + [False] * 3])
# e^x / Σ e^x in 50 digits of mpmath, for x = 1, 0, 3, 4, 5.
SOFTMAX = [
    0.011984570225884,
    0.004408876997378,
    0.088554661720632,
    0.240716527780531,
    0.654335363275575,
]
POOLINGS = {"mean": masked_mean, "max": masked_max}
FUNCTIONS = {**POOLINGS, "softmax": masked_softmax}
functions = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
poolings = pytest.mark.parametrize("function", POOLINGS.values(), ids=POOLINGS)


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float64" if tensor_is_wide(tensor) else "float32"))


def tensor_is_wide(tensor):
    return keras.backend.standardize_dtype(tensor.dtype) == "float64"


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


class TestMaskedFunctions:
    def test_numbers_of_the_article(self):
        assert to_numpy(masked_mean(PADDED, MASK))[0] == pytest.approx(2.6, rel=1e-6)
        assert to_numpy(masked_max(np.array([[-1.0, -5.0, -2.0, 0.0]]), np.array([[1, 1, 1, 0]]))) == [-1.0]
        weights = to_numpy(masked_softmax(PADDED, MASK))[0]
        np.testing.assert_allclose(weights[:5], SOFTMAX, rtol=1e-5)
        assert weights[5:].tolist() == [0.0, 0.0, 0.0]

    @pytest.mark.skipif(IS_JAX, reason="float64 is behind a global switch of JAX")
    def test_float64_is_computed_in_float64(self):
        weights = masked_softmax(ops.convert_to_tensor(PADDED, "float64"), MASK)
        np.testing.assert_allclose(to_numpy(weights)[0, :5], SOFTMAX, rtol=1e-12)
        thirds = ops.convert_to_tensor([[1.0, 0.0, 0.0]], "float64")
        assert to_numpy(masked_mean(thirds, np.ones((1, 3), bool)))[0] == pytest.approx(1 / 3, rel=1e-15)

    @functions
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_keeps_the_dtype(self, function, dtype):
        result = function(ops.convert_to_tensor(PADDED, dtype), MASK)
        assert dtype_of(result) == dtype
        expected = to_numpy(function(PADDED, MASK))
        np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-2 if "16" in dtype else 1e-6)

    @functions
    def test_whole_numbers_are_converted(self, function):
        result = function(PADDED.astype("int32"), MASK.astype("int32"))
        assert dtype_of(result) == "float32"
        np.testing.assert_allclose(to_numpy(result), to_numpy(function(PADDED, MASK)), rtol=1e-6)

    @poolings
    def test_reduces_time_of_any_features(self, function):
        inputs = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype("float32")
        mask = np.array([[True, False, True, False], [False, True, True, True]])
        reduce = {masked_mean: np.mean, masked_max: np.max}[function]
        expected = [reduce(row[kept], axis=0) for row, kept in zip(inputs, mask, strict=True)]
        np.testing.assert_allclose(to_numpy(function(inputs, mask)), expected, rtol=1e-5, atol=1e-6)

    def test_softmax_broadcasts_the_mask(self):
        logits = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
        mask = np.array([[True, False, True, False], [False, True, True, True]])[:, None, :]
        result = to_numpy(masked_softmax(logits, mask))
        exponentials = np.exp(logits) * mask
        np.testing.assert_allclose(result, exponentials / exponentials.sum(-1, keepdims=True), rtol=1e-5)

    @functions
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("hidden", [0.0, np.nan, np.inf, -np.inf, 6e4])
    def test_masked_entries_change_nothing(self, function, dtype, hidden):
        """Nor do they change a gradient, also in rows that are masked altogether."""
        inputs = np.array([[1.0, -2.0, hidden], [hidden, hidden, hidden]])
        mask = np.array([[True, True, False], [False, False, False]])
        rest = np.where(mask, inputs, 0)
        scale = np.array([[3.0], [2.0]]) if function is masked_softmax else np.array([3.0, 2.0])

        def scaled(x):
            return ops.square(function(x, mask)) * ops.cast(scale, x.dtype)

        found, expected = (ops.convert_to_tensor(array, dtype) for array in (inputs, rest))
        np.testing.assert_array_equal(to_numpy(function(found, mask)), to_numpy(function(expected, mask)))
        slope = to_numpy(gradient(scaled, found))
        np.testing.assert_array_equal(slope, to_numpy(gradient(scaled, expected)))
        assert np.all(np.isfinite(slope))
        assert np.all(slope[~mask] == 0)
        assert np.any(slope[mask] != 0)

    @functions
    def test_a_row_that_is_masked_altogether_is_zero(self, function):
        result = to_numpy(function(np.array([[-3.0, -4.0]]), np.array([[False, False]])))
        assert np.all(result == 0)

    def test_softmax_of_logits_that_are_minus_infinity(self):
        logits = np.array([[0.0, -np.inf, 0.0], [-np.inf, -np.inf, 0.0]])
        mask = np.array([[True, True, False]])
        assert to_numpy(masked_softmax(logits, mask)).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        slope = gradient(lambda x: ops.square(masked_softmax(x, mask)), ops.convert_to_tensor(logits))
        assert np.all(to_numpy(slope) == 0)

    @functions
    def test_what_is_not_masked_is_not_hidden(self, function):
        """A NaN that counts is an error of the model, and must be seen."""
        result = to_numpy(function(np.array([[np.nan, 1.0]]), np.array([[True, True]])))
        assert np.all(np.isnan(result))

    def test_mean_of_float16_is_summed_in_float32(self):
        """4096 times 100 overflows float16, and 4096 times 1.001 is lost to its rounding beyond 2048."""
        mask = np.ones((1, 4096), bool)
        for value in (100.0, 1.001):
            inputs = ops.full((1, 4096), value, dtype="float16")
            assert to_numpy(masked_mean(inputs, mask))[0] == pytest.approx(value, rel=1e-3)

    def test_float16_softmax_of_a_long_row(self):
        mask = np.arange(8192)[None, :] < 8000
        weights = to_numpy(masked_softmax(ops.zeros((1, 8192), dtype="float16"), mask))
        np.testing.assert_allclose(weights[mask], 1 / 8000, rtol=1e-3)

    def test_the_way_of_the_article_is_nan_in_float16(self):
        """Why the functions choose with `where`: 1e10 is infinite in float16, and so is every masked sum."""
        inputs, mask = ops.convert_to_tensor(PADDED, "float16"), ops.convert_to_tensor(MASK, "float16")
        shifted = inputs - (1 - mask) * ops.cast(ops.convert_to_tensor(1e10), "float16")
        assert np.all(np.isnan(to_numpy(shifted)[MASK]))
        assert np.all(np.isfinite(to_numpy(masked_softmax(inputs, MASK))))

    @functions
    def test_symbolic(self, function):
        time = 7
        result = function(keras.Input((time,)), keras.Input((time,), dtype="bool"))
        assert result.shape == ((None, time) if function is masked_softmax else (None,))
        function(keras.Input((None,)), keras.Input((time,), dtype="bool"))  # an unknown length may be any

    @poolings
    @pytest.mark.parametrize("shape", [(4,), (2, 3), (3, 4), (2, 4, 1), (1, 4), (2, 1)])
    def test_pooling_refuses_a_mask_of_another_shape(self, function, shape):
        with pytest.raises(
            ValueError, match=r"mask must be of shape \(batch, time\).* inputs of shape \(2, 4, 5"
        ):
            function(np.zeros((2, 4, 5)), np.ones(shape, bool))

    @pytest.mark.parametrize("shape", [(3,), (3, 4), (1, 2, 4)])
    def test_softmax_refuses_a_mask_that_does_not_broadcast(self, shape):
        with pytest.raises(ValueError, match="mask must be broadcastable to the logits, got"):
            masked_softmax(np.zeros((2, 4)), np.ones(shape, bool))


class TestMaskedGlobalMaxPooling1D:
    INPUTS = -1 - np.random.default_rng(0).uniform(size=(3, 4, 5)).astype("float32")
    MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)

    def test_contract(self):
        check_layer(MaskedGlobalMaxPooling1D, {}, self.INPUTS, expected_output_shape=(3, 5))

    @pytest.mark.filterwarnings("ignore:.*does not support masking")  # Keras' own does not
    @pytest.mark.parametrize("jit_compile", JIT_COMPILE)
    def test_consumes_the_mask_that_keras_passes(self, jit_compile):
        """Keras' own layer does not: that is why this one exists."""
        mine, of_keras = MaskedGlobalMaxPooling1D(), keras.layers.GlobalMaxPooling1D()
        inputs = keras.Input((4, 5))
        masked = keras.layers.Masking()(inputs)
        model = keras.Model(inputs, [mine(masked), of_keras(masked)])
        model.compile(jit_compile=jit_compile)
        found, ignoring = model.predict(self.INPUTS * self.MASK[:, :, None], verbose=0)
        expected = [self.INPUTS[0, :2].max(axis=0), self.INPUTS[1].max(axis=0), np.zeros(5)]
        np.testing.assert_array_equal(found, expected)
        assert np.all(ignoring[0] == 0)

    def test_output_carries_no_mask(self):
        masked = keras.layers.Masking()(ops.convert_to_tensor(self.INPUTS))
        assert getattr(masked, "_keras_mask", None) is not None
        assert getattr(MaskedGlobalMaxPooling1D()(masked), "_keras_mask", None) is None

    def test_without_a_mask_all_steps_count(self):
        result = to_numpy(MaskedGlobalMaxPooling1D()(self.INPUTS))
        np.testing.assert_array_equal(result, self.INPUTS.max(axis=1))

    def test_inputs_without_time_are_refused(self):
        with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
            MaskedGlobalMaxPooling1D()(np.zeros((2, 3), "float32"))


class TestAttentionPooling1D:
    INPUTS = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=bool)

    def layer(self, **kwargs):
        layer = AttentionPooling1D(**kwargs)
        layer.build((None, 5, 4))
        random = np.random.default_rng(1)
        layer.set_weights([random.normal(size=weight.shape) for weight in layer.get_weights()])
        return layer

    def test_contract(self):
        check_layer(AttentionPooling1D, {}, self.INPUTS, expected_output_shape=(3, 4))

    def test_equation(self):
        layer = self.layer()
        kernel, direction = layer.get_weights()
        scores = (np.tanh(self.INPUTS @ kernel) @ direction)[..., 0]
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(to_numpy(layer.weights_of(self.INPUTS)), weights, rtol=1e-4)
        expected = np.einsum("bt,btf->bf", weights, self.INPUTS)
        np.testing.assert_allclose(to_numpy(layer(self.INPUTS)), expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("hidden", [7.0, np.nan, np.inf])
    def test_masked_steps_change_nothing(self, hidden):
        """Nor do they change a gradient of the weights."""
        layer, padded = self.layer(), np.where(self.MASK[..., None], self.INPUTS, hidden)
        found = to_numpy(layer(padded, mask=self.MASK))
        expected = [
            to_numpy(layer(self.INPUTS[:1, :3]))[0],
            to_numpy(layer(self.INPUTS[1:2]))[0],
            np.zeros(4),
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)

        def loss(inputs):
            return lambda: ops.square(layer(inputs, mask=self.MASK))

        slopes, wanted = (gradient(loss(some), weights=layer.weights) for some in (padded, self.INPUTS))
        for slope, other in zip(slopes, wanted, strict=True):
            np.testing.assert_allclose(to_numpy(slope), to_numpy(other), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("jit_compile", JIT_COMPILE)
    def test_consumes_the_mask_that_keras_passes(self, jit_compile):
        layer, inputs = self.layer(), keras.Input((5, 4))
        model = keras.Model(inputs, layer(keras.layers.Masking()(inputs)))
        model.compile(jit_compile=jit_compile)
        found = model.predict(self.INPUTS * self.MASK[:, :, None], verbose=0)
        np.testing.assert_allclose(found, to_numpy(layer(self.INPUTS, mask=self.MASK)), rtol=1e-4, atol=1e-6)

    def test_output_carries_no_mask(self):
        masked = keras.layers.Masking()(ops.convert_to_tensor(self.INPUTS))
        assert getattr(AttentionPooling1D()(masked), "_keras_mask", None) is None

    @pytest.mark.parametrize("mask", [None, MASK])
    def test_weights_are_in_float32(self, mask):
        layer = self.layer(dtype="float16")
        assert dtype_of(layer.weights_of(self.INPUTS.astype("float16"), mask)) == "float32"

    def test_a_mask_of_another_shape(self):
        with pytest.raises(ValueError, match=r"mask must be of shape \(batch, time\)"):
            self.layer()(self.INPUTS, mask=self.MASK[:, :4])

    def test_float16_is_summed_in_float32(self):
        """4096 weights of 1/4096 added up in float16 stop short of 1."""
        layer = AttentionPooling1D(dtype="mixed_float16")
        found = layer(np.ones((1, 4096, 2), "float16"))
        assert dtype_of(found) == "float16"
        np.testing.assert_allclose(to_numpy(found), 1, rtol=1e-3)

    def test_inputs_without_time_are_refused(self):
        with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
            AttentionPooling1D()(np.zeros((2, 3), "float32"))


class TestCenterLoss:
    FEATURES = np.array([[1.0, 2.0], [0.0, -1.0]], "float32")
    LABELS = np.array([1, 0], "int32")
    CENTERS = np.array([[0.0, 0.0], [1.0, 1.0]], "float32")

    def layer(self, **kwargs):
        layer = CenterLoss(classes=2, **kwargs)
        layer.build([(None, 2), (None,)])
        layer.set_weights([self.CENTERS])
        return layer

    def classifier(self, layer, jit_compile=False):
        """The toy of article 5765: the features are the logits."""
        features, labels = keras.Input((2,)), keras.Input((), dtype="int32")
        model = keras.Model([features, labels], layer([features, labels]))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1.0), loss=loss, jit_compile=jit_compile)
        return model

    def test_a_step_of_adam_is_the_learning_rate(self):
        """However many examples share a centre; TensorFlow must not square their gradients one by one."""
        features, labels = keras.Input((2,)), keras.Input((), dtype="int32")
        layer = CenterLoss(classes=2)
        model = keras.Model([features, labels], layer([features, labels]))
        model.compile(keras.optimizers.Adam(0.01))
        model.fit([np.ones((64, 2), "float32"), np.zeros(64, "int32")], batch_size=64, verbose=0)
        np.testing.assert_allclose(layer.get_weights()[0], [[0.01, 0.01], [0, 0]], rtol=1e-4)

    @pytest.mark.parametrize("labels", [LABELS, LABELS[:, None]], ids=["vector", "column"])
    def test_contract(self, labels):
        inputs = [self.FEATURES, labels]
        check_layer(CenterLoss, {"classes": 3, "weight": 0.25}, inputs, expected_output_shape=(2, 2))

    @pytest.mark.parametrize("jit_compile", JIT_COMPILE)
    def test_loss_of_the_toy(self, jit_compile):
        """Cross-entropy log(1 + e^-1) for each example, and one half of the squared distances 1 and 1."""
        model = self.classifier(self.layer(), jit_compile)
        loss = model.evaluate([self.FEATURES, self.LABELS], self.LABELS, verbose=0)
        assert loss == pytest.approx(0.8132616875182228, rel=1e-6)

    @pytest.mark.parametrize("jit_compile", JIT_COMPILE)
    def test_a_step_moves_the_centres_to_their_features(self, jit_compile):
        """The slope of a centre is 2 · weight / batch · (centre - feature), by hand: (0, 1) / 2 for both."""
        layer = self.layer()
        model = self.classifier(layer, jit_compile)
        model.train_on_batch([self.FEATURES, self.LABELS], self.LABELS)
        expected = self.CENTERS - np.array([[0.0, 0.5], [0.0, -0.5]])
        np.testing.assert_allclose(to_numpy(layer.centers), expected, rtol=1e-6)

    def test_weight_and_mean(self):
        """Squared distances 4 and 16 to the centres: a mean of 10, a sum over features of both axes."""
        layer = self.layer(weight=0.25)
        features = self.CENTERS[[0, 1]] + np.array([[0.0, 2.0], [4.0, 0.0]], "float32")
        returned = layer([features, np.array([0, 1])])
        assert to_numpy(layer.losses[0]) == pytest.approx(2.5)
        np.testing.assert_array_equal(to_numpy(returned), features)
        layer([features + np.array([[3.0, 0.0], [0.0, 3.0]], "float32"), np.array([[0], [1]])])
        assert to_numpy(layer.losses[-1]) == pytest.approx(0.25 * (4 + 16 + 9 + 9) / 2)

    def test_starts_at_zero(self):
        layer = CenterLoss(classes=2)
        layer([self.FEATURES, self.LABELS])
        assert np.all(to_numpy(layer.centers) == 0)

    def test_gradient_of_the_features(self):
        layer = self.layer()

        def loss(features):
            layer([features, self.LABELS])
            return layer.losses[-1]

        expected = (self.FEATURES - self.CENTERS[self.LABELS]) / 2
        np.testing.assert_allclose(to_numpy(gradient(loss, self.FEATURES)), expected, rtol=1e-6)

    def test_float16_is_computed_in_float32(self):
        """301² is infinite in float16, and a centre of 2049 would be rounded to 2048."""
        layer = CenterLoss(classes=1, weight=1.0, dtype="mixed_float16")
        layer.build([(None, 1), (None,)])
        layer.set_weights([np.array([[2049.0]], "float32")])
        returned = layer([np.array([[1748.0]], "float16"), np.array([0])])
        assert dtype_of(returned) == "float16"
        assert to_numpy(layer.losses[0]) == 301**2

    @pytest.mark.parametrize("label", [-1, 2])
    def test_an_unknown_label_makes_the_loss_nan(self, label):
        layer = self.layer()
        layer([self.FEATURES, np.array([0, label])])
        assert np.isnan(to_numpy(layer.losses[0]))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"classes": 0}, "classes must be a whole number of at least 1, got 0"),
            ({"classes": 2, "weight": -1}, "weight must be a finite number of at least 0, got -1"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            CenterLoss(**arguments)

    @pytest.mark.parametrize(
        "inputs",
        [FEATURES, [FEATURES], [LABELS, FEATURES], [FEATURES, FEATURES], [FEATURES[None], LABELS]],
        ids=["no list", "no labels", "exchanged", "one-hot", "rank 3"],
    )
    def test_bad_inputs(self, inputs):
        with pytest.raises(ValueError, match=r"inputs must be features \(batch, size\) and labels"):
            CenterLoss(2)(inputs)

    def test_labels_of_a_float_type(self):
        with pytest.raises(ValueError, match="labels must be of an integer type, got 'dtype float32'"):
            CenterLoss(2)([np.zeros((3, 2)), np.zeros(3)])


@keras.saving.register_keras_serializable(package="kexue")
class TiedDenseOnItsOwn(TiedDense):
    """With an embedding of its own policy, for the contract is about one layer: here `dtype` is for both."""

    def __init__(self, words, size, use_bias=True, activation=None, **kwargs):
        embedding = keras.layers.Embedding(words, size, dtype=kwargs.get("dtype"))
        super().__init__(embedding, use_bias, activation, **kwargs)

    def get_config(self):
        config = super().get_config()
        config.pop("embedding")
        return {**config, "words": self.embedding.input_dim, "size": self.embedding.output_dim}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class TestTiedDense:
    TOKENS = np.array([[1, 2, 3, 0], [4, 1, 0, 0]], "int32")
    HIDDEN = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")

    def model(self):
        """Words to words by way of a dense layer: 7·3 + (3·3 + 3) + 7 = 40 parameters."""
        keras.utils.set_random_seed(0)
        embedding = keras.layers.Embedding(7, 3, mask_zero=True, name="words")
        tokens = keras.Input((None,), dtype="int32")
        hidden = keras.layers.Dense(3, name="hidden")(embedding(tokens))
        return keras.Model(tokens, TiedDense(embedding, name="scores")(hidden))

    def is_tied(self, model):
        """Doubling the embedding's matrix E doubles E h once by way of h, and once more by way of E."""
        model.get_layer("hidden").set_weights([np.eye(3), np.zeros(3)])
        before = to_numpy(model(self.TOKENS))
        words = model.get_layer("words")
        words.embeddings.assign(2 * words.embeddings)
        ratio = to_numpy(model(self.TOKENS)) / before
        assert np.allclose(ratio, ratio.flat[0])
        return {4.0: True, 2.0: False}[round(float(ratio.flat[0]), 3)]

    @pytest.mark.parametrize("arguments", [{"use_bias": False, "activation": "tanh"}, {}])
    def test_contract(self, arguments):
        check_layer(
            TiedDenseOnItsOwn,
            {"words": 7, "size": 3, **arguments},
            self.HIDDEN,
            expected_output_shape=(2, 4, 7),
            mask=self.TOKENS > 0,
        )

    def test_config(self):
        layer = TiedDense(keras.layers.Embedding(7, 3, name="words"), use_bias=False, activation="tanh")
        rebuilt = TiedDense.from_config(layer.get_config())
        assert rebuilt.get_config() == layer.get_config()
        assert (rebuilt.embedding.name, rebuilt.use_bias) == ("words", False)
        assert rebuilt.activation is keras.activations.tanh
        assert keras.saving.get_registered_name(TiedDense) == "kexue>TiedDense"

    def test_scores(self):
        embedding = keras.layers.Embedding(7, 3)
        layer = TiedDense(embedding, activation="relu")
        layer.build((None, 3))
        matrix, bias = np.random.default_rng(1).normal(size=(7, 3)), np.arange(7.0)
        embedding.set_weights([matrix])
        layer.bias.assign(bias)
        expected = np.maximum(self.HIDDEN @ matrix.T + bias, 0)
        np.testing.assert_allclose(to_numpy(layer(self.HIDDEN)), expected, rtol=1e-4, atol=1e-5)

    def test_parameters_are_counted_once(self):
        model = self.model()
        assert model.count_params() == 40
        assert len(model.trainable_weights) == 4

    def test_is_tied(self):
        assert self.is_tied(self.model())

    @pytest.mark.parametrize("jit_compile", JIT_COMPILE)
    def test_the_matrix_is_trained_from_both_ends(self, jit_compile):
        """A word that is never read still moves, for its score is read: the softmax pushes it down."""
        model = self.model()
        before = model.get_layer("words").get_weights()[0]
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1.0), loss=loss, jit_compile=jit_compile)
        model.train_on_batch(self.TOKENS, self.TOKENS)
        after = model.get_layer("words").get_weights()[0]
        assert np.all(np.any(before != after, axis=1))

    @pytest.mark.parametrize(
        "copied",
        [
            lambda model, path: (model.save(path), keras.saving.load_model(path))[1],
            lambda model, path: copy.deepcopy(model),
        ],
        ids=["save and load", "deepcopy"],
    )
    def test_is_tied_after(self, copied, tmp_path):
        model = self.model()
        model.get_layer("scores").bias.assign(np.arange(7.0))
        again = copied(model, tmp_path / "model.keras")
        np.testing.assert_allclose(to_numpy(again(self.TOKENS)), to_numpy(model(self.TOKENS)), rtol=1e-5)
        assert again.count_params() == 40
        assert again.get_layer("scores").embedding is again.get_layer("words")
        assert again.get_layer("words") is not model.get_layer("words")
        again.get_layer("scores").bias.assign(np.zeros(7))
        assert self.is_tied(again)

    @pytest.mark.parametrize(
        "rebuilt",
        [
            keras.models.clone_model,
            lambda model: keras.Model.from_config(model.get_config()),
            lambda model: keras.models.model_from_json(model.to_json()),
        ],
        ids=["clone_model", "from_config", "to_json"],
    )
    def test_comes_apart_where_keras_rebuilds_layers_one_by_one(self, rebuilt):
        """As the docstring says; if a later Keras keeps the tie, the docstring may say so."""
        model = rebuilt(self.model())
        assert model.count_params() == 40 + 7 * 3
        assert not self.is_tied(model)

    def test_an_embedding_that_is_replaced_takes_its_dense_layer_along(self):
        """By hand, as the docstring says: the first replacement alone leaves it at the old matrix."""
        model, words = self.model(), keras.layers.Embedding(7, 3, mask_zero=True, name="words")
        apart = replace_layer(model, "words", lambda layer: words)
        assert apart.count_params() == 40 + 7 * 3
        assert not self.is_tied(apart)
        tied = replace_layer(apart, "scores", lambda layer: TiedDense(words, name="scores"))
        assert tied.count_params() == 40
        assert self.is_tied(tied)

    def test_a_transpose_taken_once_is_a_copy(self):
        """The mistake that the layer avoids. On PyTorch it goes unnoticed: there a transpose is a view."""
        embedding = keras.layers.Embedding(7, 3)
        embedding.build()
        once = ops.transpose(embedding.embeddings)
        embedding.embeddings.assign(2 * embedding.embeddings + 1)
        follows = np.array_equal(ops.convert_to_numpy(once), embedding.get_weights()[0].T)
        assert follows == IS_TORCH

    def test_agrees_with_reversible_embedding(self):
        embedding = keras.layers.ReversibleEmbedding(7, 3)
        embedding(self.TOKENS)
        expected = to_numpy(embedding(self.HIDDEN, reverse=True))
        scores = to_numpy(TiedDense(embedding)(self.HIDDEN))
        np.testing.assert_allclose(scores, expected, rtol=1e-5)

    def test_embedding_must_be_a_layer(self):
        with pytest.raises(ValueError, match=r"embedding must be a keras\.layers\.Embedding, not its output"):
            TiedDense(keras.Input((3,)))

    def test_inputs_must_be_as_wide_as_the_embedding(self):
        with pytest.raises(
            ValueError, match=r"inputs must be as wide as the embedding, 3, got 'shape \(2, 4\)'"
        ):
            TiedDense(keras.layers.Embedding(7, 3))(np.zeros((2, 4), "float32"))
