"""Attention against Keras' own, step by step against all at once, and its positions."""

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib import masks
from kexue_lib.autodiff import gradient
from kexue_lib.layers import MultiHeadAttention, RelativeBias, rotate
from kexue_lib.layers.attention import attention_weights
from kexue_lib.layers.common import registered
from kexue_lib.testing import check_layer

IS_JAX, IS_TORCH = (keras.backend.backend() == name for name in ("jax", "torch"))
RNG = np.random.default_rng(0)
QUERY = RNG.normal(size=(2, 5, 6)).astype("float32")
VALUE = RNG.normal(size=(2, 7, 4)).astype("float32")
MASK = np.arange(7)[None, :] < np.array([[7], [4]])


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)


def built(query=QUERY, value=VALUE, **arguments):
    """A layer with 2 heads of 4 and weights that are all different from 0."""
    layer = MultiHeadAttention(2, 4, **arguments)
    layer.build(query.shape, value.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def assert_close(found, expected):
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-4, atol=1e-5)


@registered
class AttentionToItself(MultiHeadAttention):
    """With one argument, for the contract is about layers that have one."""

    def build(self, input_shape):
        super().build(input_shape, input_shape)

    def call(self, inputs, mask=None, training=None):
        return super().call(inputs, inputs, value_mask=mask, training=training)

    def compute_output_shape(self, input_shape):
        return super().compute_output_shape(input_shape, input_shape)


class TestMultiHeadAttention:
    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {
                "output_size": 3,
                "use_bias": False,
                "scale": False,
                "causal": True,
                "rotary": True,
                "dropout": 0.1,
            },
        ],
    )
    def test_contract(self, arguments):
        check_layer(
            AttentionToItself,
            {"heads": 2, "head_size": 4, **arguments},
            QUERY,
            expected_output_shape=(2, 5, arguments.get("output_size", 6)),
            mask=MASK[:, :5],
        )

    @pytest.mark.parametrize("use_bias", [True, False])
    @pytest.mark.parametrize("masked", ["nothing", "padding", "by example", "by head"])
    def test_is_keras_attention(self, use_bias, masked):
        layer = built(use_bias=use_bias)
        of_keras = keras.layers.MultiHeadAttention(2, 4, use_bias=use_bias)
        of_keras.build(QUERY.shape, VALUE.shape)
        pairs = zip(layer.get_weights(), of_keras.weights, strict=True)
        of_keras.set_weights([value.reshape(weight.shape) for value, weight in pairs])
        rule = np.random.default_rng(2).uniform(size=(2, 2, 5, 7)) < 0.7
        rule = {"by example": rule[:, 0], "by head": rule}.get(masked)
        padding = MASK if masked == "padding" else None
        found = layer(QUERY, VALUE, value_mask=padding, attention_mask=rule)
        expected = of_keras(QUERY, VALUE, value_mask=padding, attention_mask=rule)
        assert_close(found, expected)

    def test_causal_is_keras_causal(self):
        of_keras = keras.layers.MultiHeadAttention(2, 4)
        of_keras.build(QUERY.shape, QUERY.shape)
        layer = built(value=QUERY, causal=True)
        pairs = zip(layer.get_weights(), of_keras.weights, strict=True)
        of_keras.set_weights([value.reshape(weight.shape) for value, weight in pairs])
        assert_close(layer(QUERY, QUERY), of_keras(QUERY, QUERY, use_causal_mask=True))

    def test_keras_passes_the_mask_of_the_value(self):
        layer, value = built(), keras.Input((7, 4))
        query, masked = keras.Input((5, 6)), keras.layers.Masking()(value)
        model = keras.Model([query, value], layer(query, masked, bias=ops.zeros((1, 2, 5, 7))))
        assert model.output_shape == (None, 5, 6)
        found = model([QUERY, VALUE * MASK[:, :, None]])
        assert_close(found, layer(QUERY, VALUE, value_mask=MASK))

    def test_a_bias_is_added_after_scaling(self):
        """A bias of log 2 doubles the weight of a key, whatever the scale: as if it stood there twice."""
        bias = np.zeros((1, 1, 1, 7), "float32")
        bias[..., 3] = np.log(2)
        twice = np.concatenate([VALUE, VALUE[:, 3:4]], axis=1)
        for scale in (True, False):
            layer = built(scale=scale)
            assert_close(layer(QUERY, VALUE, bias=bias), layer(QUERY, twice))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_small_bias_is_not_lost_in_half_precision(self, dtype):
        """Neither float16 nor bfloat16 has a number between 2048 and 2050."""
        ones, large = ops.ones((1, 1, 1, 1), dtype=dtype), ops.full((1, 1, 2, 1), 2048, dtype=dtype)
        weights = attention_weights(ones, large, np.ones((1, 2), bool), ops.convert_to_tensor([0.0, 1.0]))
        assert keras.backend.standardize_dtype(weights.dtype) == dtype
        expected = [1 / (1 + np.e), np.e / (1 + np.e)]
        np.testing.assert_allclose(to_numpy(ops.cast(weights, "float32")).ravel(), expected, rtol=4e-3)

    def test_without_scale(self):
        scaled, unscaled = built(), built(scale=False)
        kernel, bias, *rest = scaled.get_weights()
        unscaled.set_weights([kernel / 2, bias / 2, *rest])
        assert_close(unscaled(QUERY, VALUE), scaled(QUERY, VALUE))

    def test_no_key_at_all(self):
        """The output is the bias of the last layer, and no slope is NaN."""
        layer, nothing = built(), np.zeros((2, 7), bool)
        found = to_numpy(layer(QUERY, VALUE, value_mask=nothing))
        np.testing.assert_allclose(found, np.broadcast_to(layer.get_weights()[-1], found.shape), rtol=1e-6)
        assert np.all(to_numpy(gradient(lambda x: layer(x, VALUE, value_mask=nothing), QUERY)) == 0)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, dtype):
        layer = built(dtype=f"mixed_{dtype}")
        found = to_numpy(ops.cast(layer(QUERY, VALUE, value_mask=MASK), "float32"))
        expected = to_numpy(built()(QUERY, VALUE, value_mask=MASK))
        np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())

    def test_dropout_is_for_training(self):
        layer = built(dropout=0.5)
        assert_close(layer(QUERY, VALUE), built()(QUERY, VALUE))
        different = to_numpy(layer(QUERY, VALUE, training=True)) != to_numpy(layer(QUERY, VALUE))
        assert np.any(different)

    def test_dropout_drops_weights(self):
        """Whole values: with values of ones and nothing added, an output is the sum of what was kept."""
        layer = MultiHeadAttention(1, 4, use_bias=False, dropout=0.5)
        layer.build((None, None, 4), (None, None, 4))
        layer.set_weights([np.zeros((4, 1, 4))] * 2 + [np.eye(4)[:, None]] + [np.eye(4)[None]])
        inputs = np.ones((3, 20, 4), "float32")
        sums = to_numpy(layer(inputs, inputs, training=True))
        np.testing.assert_allclose(sums, np.broadcast_to(sums[..., :1], sums.shape), rtol=1e-5)
        np.testing.assert_allclose(sums * 10, np.rint(sums * 10), atol=1e-4)  # each of 20 weighs 2 / 20 or 0
        assert 0.8 < sums.mean() < 1.2

    def test_a_model_for_any_length_that_is_saved(self, tmp_path):
        """With all that it can be given, by way of Keras: masks, a relative bias, rotary positions."""
        tokens, places = (keras.Input((None,), dtype="int32") for _ in range(2))
        embedded = keras.layers.Embedding(5, 6, mask_zero=True)(tokens)
        layer = MultiHeadAttention(2, 4, causal=True, rotary=True)
        bias = RelativeBias(heads=2, bidirectional=False)(places)
        seen = keras.ops.expand_dims(masks.padding(tokens), 1)
        model = keras.Model([tokens, places], layer(embedded, embedded, attention_mask=seen, bias=bias))
        model.compile("sgd", "mse", jit_compile=not IS_TORCH)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        for length in (4, 7):
            batch = np.array([[1, 2, 3, 4, 3, 2, 1], [3, 4, 1, 0, 0, 0, 0]])[:, :length]
            inputs = [batch, np.tile(np.arange(length), (2, 1))]
            found = model.predict_on_batch(inputs)
            assert_close(again.predict_on_batch(inputs), found)
            assert_close(model.predict_on_batch([row[1:, :3] for row in inputs]), found[1:, :3])
        assert np.isfinite(model.train_on_batch(inputs, np.ones((2, 7, 6))))

    @pytest.mark.parametrize("rotary", [False, True])
    @pytest.mark.parametrize("pieces", [[1] * 5, [3, 1, 1], [2, 3], [5]])
    def test_step_by_step_is_all_at_once(self, rotary, pieces):
        layer = built(value=QUERY, causal=True, rotary=rotary)
        cache, start, outputs = layer.empty_cache(batch=2, places=9), 0, []
        assert tuple(cache.shape) == (2, 2, 2, 9, 4)
        for count in pieces:
            piece = QUERY[:, start : start + count]
            output, cache = layer(piece, piece, cache=cache, cache_index=start)
            outputs.append(to_numpy(output))
            start += count
        assert_close(np.concatenate(outputs, axis=1), layer(QUERY, QUERY))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_cache_in_half_precision(self, dtype):
        layer = built(value=QUERY, causal=True, rotary=True, dtype=f"mixed_{dtype}")
        cache, outputs = layer.empty_cache(batch=2, places=6), []
        for start, stop in ((0, 3), (3, 4), (4, 5)):
            piece = QUERY[:, start:stop]
            output, cache = layer(piece, piece, cache=cache, cache_index=start)
            outputs.append(to_numpy(ops.cast(output, "float32")))
            assert {keras.backend.standardize_dtype(x.dtype) for x in (output, cache)} == {dtype}
        expected = to_numpy(built(value=QUERY, causal=True, rotary=True)(QUERY, QUERY))
        found = np.concatenate(outputs, axis=1)
        np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())

    def test_an_empty_cache_has_the_dtype_of_the_layer(self):
        cache = MultiHeadAttention(2, 4, dtype="mixed_bfloat16").empty_cache(batch=3, places=9)
        assert keras.backend.standardize_dtype(cache.dtype) == "bfloat16"

    def test_prefix_then_steps(self):
        """A prompt that is read in both directions, of other lengths in one batch, and two steps after it."""
        layer, length = built(value=QUERY), 3
        prompt = np.array([[True] * 3, [True, True, False]])
        seen = np.concatenate([prompt, np.ones((2, 2), bool)], axis=1)
        whole = to_numpy(masks.prefix([[0, 0, 0, 1, 1]])) & seen[:, None, :]
        expected = to_numpy(layer(QUERY, QUERY, attention_mask=whole))
        cache, outputs = layer.empty_cache(2, 5), []
        for start, stop in ((0, length), (3, 4), (4, 5)):
            piece = QUERY[:, start:stop]
            output, cache = layer(
                piece, piece, attention_mask=seen[:, None, None, :], cache=cache, cache_index=start
            )
            outputs.append(to_numpy(output))
        assert_close(np.concatenate(outputs, axis=1), expected)

    def test_a_compiled_step_serves_every_index(self):
        layer = built(value=QUERY, causal=True, rotary=True)
        inputs, cache = keras.Input((1, 6)), keras.Input((2, 2, 5, 4))
        index = keras.Input((), dtype="int32")
        model = keras.Model([inputs, cache, index], layer(inputs, inputs, cache=cache, cache_index=index[0]))
        model.compile(jit_compile=not IS_TORCH)
        state, outputs = np.zeros((2, 2, 2, 5, 4), "float32"), []
        for step in range(5):
            batch = [QUERY[:, step : step + 1], state, np.full(2, step, "int32")]
            output, state = model.predict_on_batch(batch)
            outputs.append(output)
        assert_close(np.concatenate(outputs, axis=1), layer(QUERY, QUERY))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"heads": 0, "head_size": 4}, "heads must be a whole number of at least 1, got 0"),
            ({"heads": 2, "head_size": 0}, "head_size must be a whole number of at least 1, got 0"),
            (
                {"heads": 2, "head_size": 3, "rotary": True},
                "head_size must be even with rotary positions, got 3",
            ),
            ({"heads": 2, "head_size": 4, "output_size": 0}, "output_size must be a whole number"),
            ({"heads": 2, "head_size": 4, "dropout": 1.0}, "dropout must be below 1, got 1.0"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            MultiHeadAttention(**arguments)

    def test_bad_use_of_a_cache(self):
        layer = built(value=QUERY)
        cache = layer.empty_cache(2, 9)
        with pytest.raises(ValueError, match="cache_index must be given with a cache"):
            layer(QUERY, QUERY, cache=cache)
        with pytest.raises(ValueError, match="cache_index must be given with a cache"):
            layer(QUERY, QUERY, cache_index=0)
        for index in (5, -1):
            with pytest.raises(ValueError, match="cache_index must be a place from which 5 more are among"):
                layer(QUERY, QUERY, cache=cache, cache_index=index)
        with pytest.raises(ValueError, match="value_mask must be None with a cache"):
            layer(QUERY, QUERY, value_mask=MASK[:, :5], cache=cache, cache_index=0)

    def test_masks_of_another_shape(self):
        layer = built()
        with pytest.raises(ValueError, match=r"value_mask must be of shape \(batch, time\)"):
            layer(QUERY, VALUE, value_mask=MASK[:, :5])
        with pytest.raises(ValueError, match="mask must be broadcastable"):
            layer(QUERY, VALUE, attention_mask=np.ones((5, 5), bool))


class TestRotate:
    def test_is_a_product_of_complex_numbers(self):
        inputs = RNG.normal(size=(2, 3, 5, 8))
        angles = np.arange(4, 9)[:, None] * 10000.0 ** (-np.arange(4) / 4)
        turned = (inputs[..., 0::2] + 1j * inputs[..., 1::2]) * np.exp(1j * angles)
        found = to_numpy(rotate(inputs.astype("float32"), offset=4))
        np.testing.assert_allclose(found[..., 0::2], turned.real, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[..., 1::2], turned.imag, rtol=1e-4, atol=1e-5)

    def test_scores_depend_on_the_distance(self):
        queries, keys = RNG.normal(size=(2, 4, 6)).astype("float32")
        products = [
            to_numpy(ops.matmul(rotate(queries, start), ops.transpose(rotate(keys, start))))
            for start in (0, 50)
        ]
        np.testing.assert_allclose(*products, rtol=1e-4, atol=1e-4)

    def test_half_precision_keeps_far_places_apart(self):
        """In float16, 2049 is 2048; the angles are computed in float32."""
        inputs = np.ones((2, 4), "float16")
        found = to_numpy(rotate(inputs, offset=2048))
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, to_numpy(rotate(inputs.astype("float32"), 2048)), atol=2e-3)
        assert np.abs(found[0] - found[1]).max() > 0.1

    def test_whole_numbers_are_converted(self):
        assert_close(rotate([[2, 0], [2, 0]]), [[2, 0], [2 * np.cos(1), 2 * np.sin(1)]])

    def test_without_time(self):
        with pytest.raises(ValueError, match=r"inputs must be of shape \(..., time, features\)"):
            rotate(np.zeros(4, "float32"))

    def test_odd_features(self):
        with pytest.raises(ValueError, match="inputs must be of an even number of features"):
            rotate(np.zeros((2, 3), "float32"))


class TestRelativeBias:
    POSITIONS = np.tile(np.arange(4), (2, 1)).astype("int32")

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_contract(self, bidirectional):
        arguments = {"heads": 3, "buckets": 8, "furthest": 20, "bidirectional": bidirectional}
        check_layer(RelativeBias, arguments, self.POSITIONS, expected_output_shape=(2, 3, 4, 4))

    def test_buckets_of_t5(self):
        """The table of T5's own function for distances -10 … 10, and its ends."""
        found = to_numpy(RelativeBias(heads=1).bucket(np.arange(-10, 11)))
        up = [8, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23, 24, 24, 24]
        assert found.tolist() == up
        assert to_numpy(RelativeBias(heads=1).bucket(np.array([-500, -128, 128, 500]))).tolist() == [
            15,
            15,
            31,
            31,
        ]
        found = to_numpy(
            RelativeBias(heads=1, bidirectional=False).bucket(np.array([3, 0, -1, -15, -16, -500]))
        )
        assert found.tolist() == [0, 0, 1, 15, 16, 31]

    def test_buckets_at_their_edges(self):
        """The logarithm may be rounded; it must not push a distance into another bucket."""
        distances = np.arange(8, 140)
        edges = [12, 16, 23, 32, 46, 64, 91]  # 8 * 16^(k / 8), rounded up
        found = to_numpy(RelativeBias(heads=1).bucket(-distances))
        assert found.tolist() == (8 + np.searchsorted(edges, distances, side="right")).tolist()

    def test_as_few_buckets_as_there_can_be(self):
        layer = RelativeBias(heads=1, buckets=2, furthest=3, bidirectional=False)
        assert to_numpy(layer.bucket(np.array([1, 0, -1, -2, -9]))).tolist() == [0, 0, 1, 1, 1]

    def test_in_a_model_with_places_of_keys(self):
        places, of_keys = keras.Input((3,), dtype="int32"), keras.Input((None,), dtype="int32")
        layer = RelativeBias(heads=2)
        model = keras.Model([places, of_keys], layer(places, key_positions=of_keys))
        assert model.output_shape == (None, 2, 3, None)
        inputs = [np.array([[4, 5, 6]]), np.arange(7)[None]]
        assert_close(model(inputs), layer(inputs[0], inputs[1]))

    def test_positions_without_a_batch(self):
        with pytest.raises(ValueError, match="expected ndim=2, found ndim=1"):
            RelativeBias(heads=1)(np.arange(3))

    def test_looks_up_the_bucket(self):
        layer = RelativeBias(heads=2)
        found = to_numpy(layer(np.array([[5]]), np.array([[0, 4, 5, 6, 300]])))
        assert found.shape == (1, 2, 1, 5)
        np.testing.assert_array_equal(found[0, :, 0], layer.get_weights()[0][[5, 1, 0, 17, 31]].T)

    def test_is_a_bias_of_attention(self):
        places = np.arange(5)[None, :]
        bias = RelativeBias(heads=2)(places)
        layer = built(value=QUERY)
        assert np.any(to_numpy(layer(QUERY, QUERY, bias=bias)) != to_numpy(layer(QUERY, QUERY)))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"heads": 0}, "heads must be a whole number of at least 1"),
            ({"heads": 1, "buckets": 2}, "buckets must be a whole number of at least 4, got 2"),
            ({"heads": 1, "buckets": 7}, "buckets must be even, got 7"),
            ({"heads": 1, "furthest": 32}, "furthest must be a whole number of at least 33, got 32"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            RelativeBias(**arguments)
