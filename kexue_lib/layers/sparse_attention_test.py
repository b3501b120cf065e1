"""Computed in blocks, the result is that of the full matrix with a mask."""

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.autodiff import compiled, gradient
from kexue_lib.layers import AtrousSelfAttention, LocalSelfAttention, SparseSelfAttention
from kexue_lib.testing import check_layer

IS_JAX, IS_TORCH = (keras.backend.backend() == name for name in ("jax", "torch"))
LAYERS = {AtrousSelfAttention: "stride", LocalSelfAttention: "window", SparseSelfAttention: "stride"}
TOLERANCES = {"float32": 1e-5, **({} if IS_JAX else {"float64": 1e-12})}  # of JAX, behind a switch
layers = pytest.mark.parametrize("layer_class", LAYERS)
in_directions = pytest.mark.parametrize("causal", [False, True])


def inputs_of(length, batch=2, features=6):
    return np.random.default_rng(length).normal(size=(batch, length, features))


def pair(layer_class, k, causal=False, dtype="float32", features=6):
    """The layer and its reference, with the same weights, biases that are not 0 among them."""
    arguments = {"heads": 2, "head_size": 3, LAYERS[layer_class]: k, "causal": causal, "dtype": dtype}
    pair = [layer_class(**arguments, reference=reference) for reference in (False, True)]
    rng = np.random.default_rng(0)
    for layer in pair:
        layer.build((None, None, features))
    values = [rng.normal(size=weight.shape) for weight in pair[0].weights]
    for layer in pair:
        layer.set_weights(values)
    return pair


def assert_same(layer_class, length, k, causal, dtype, mask=None):
    inputs, layers = ops.convert_to_tensor(inputs_of(length), dtype), pair(layer_class, k, causal, dtype)
    scale = ops.convert_to_tensor(np.random.default_rng(1).normal(size=inputs.shape), dtype)

    def outputs_and_slopes(layer):
        """Compiled, because JAX would compile every operation by itself."""

        def both(x):
            return layer(x, mask=mask), gradient(lambda x: scale * layer(x, mask=mask), x)

        return [ops.convert_to_numpy(tensor) for tensor in compiled(both)(inputs)]

    for found, expected in zip(*map(outputs_and_slopes, layers), strict=True):
        assert np.all(np.isfinite(found))
        atol = TOLERANCES[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@layers
@in_directions
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("length", "k"), [(37, 4), (8, 4), (2, 5), (3, 1)])
def test_forward_and_gradient_are_those_of_the_reference(layer_class, length, k, causal, dtype):
    assert_same(layer_class, length, k, causal, dtype)


@layers
@in_directions
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_padding(layer_class, causal, dtype):
    """At the end, at the start, in between, and altogether."""
    mask = np.ones((2, 13), bool)
    mask[0, 8:], mask[1, :2], mask[1, 5] = False, False, False
    assert_same(layer_class, 13, 3, causal, dtype, mask)
    mask[1] = False
    assert_same(layer_class, 13, 3, causal, dtype, mask)


@layers
@in_directions
@pytest.mark.parametrize("places", [slice(0, None, 3), slice(1, 3)])
def test_scores_far_apart(layer_class, causal, places):
    """What is subtracted before the exponentials is the largest of all: that of one set would not do."""
    large = ops.convert_to_tensor(inputs_of(11).astype("float32"))
    large = large * ops.where(np.isin(np.arange(11), np.arange(11)[places]), 40.0, 1.0)[None, :, None]
    found, expected = (ops.convert_to_numpy(layer(large)) for layer in pair(layer_class, 3, causal))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@layers
@in_directions
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_gradients_of_the_weights(layer_class, causal, dtype):
    inputs = ops.convert_to_tensor(inputs_of(11), dtype)
    found, expected = (
        compiled(lambda x, f=layer: gradient(lambda: ops.square(f(x)), weights=f.trainable_weights))(inputs)
        for layer in pair(layer_class, 3, causal, dtype)
    )
    # That of the keys' bias is 0, for it adds the same to all scores of a row; what is left is rounding.
    largest = max(np.abs(ops.convert_to_numpy(slope)).max() for slope in expected)
    for one, other in zip(found, expected, strict=True):
        one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCES[dtype] * largest)


@layers
@in_directions
def test_who_sees_whom(layer_class, causal):
    """By the slopes: output i moves with input j exactly where the pattern, written out, says so."""
    layer, length, k = pair(layer_class, 3, causal)[0], 11, 3
    inputs = inputs_of(length, batch=1).astype("float32")

    def sees(i, j):
        near, in_step = abs(i - j) <= k, (i - j) % k == 0
        pattern = {AtrousSelfAttention: in_step, LocalSelfAttention: near}.get(layer_class, near or in_step)
        return pattern and not (causal and j > i)

    for i in (0, 4, 10):
        slope_of = compiled(lambda x, i=i: gradient(lambda x: layer(x)[:, i], x))
        slope = ops.convert_to_numpy(slope_of(inputs))[0]
        assert np.any(slope != 0, axis=1).tolist() == [sees(i, j) for j in range(length)]


@layers
def test_what_is_padded_changes_nothing(layer_class):
    layer, inputs = pair(layer_class, 2)[0], inputs_of(9).astype("float32")
    mask = np.arange(9)[None, :] < np.array([[9], [5]])
    changed = np.where(mask[:, :, None], inputs, 1000)
    before, after = (ops.convert_to_numpy(layer(x, mask=mask)) for x in (inputs, changed))
    np.testing.assert_array_equal(before[mask], after[mask])
    shorter = ops.convert_to_numpy(layer(inputs[1:, :5]))
    np.testing.assert_allclose(after[1:, :5], shorter, rtol=1e-5, atol=1e-5)


@layers
@in_directions
def test_half_precision_is_summed_in_float32(layer_class, causal):
    """The sum of 140 values of 1000, before it is divided, overflows float16."""
    layer = layer_class(1, 1, 140 if layer_class is LocalSelfAttention else 1, causal, dtype="mixed_float16")
    layer.build((None, None, 1))
    zero, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    values = {"query": (zero, 0), "key": (zero, 0), "value": (1000 * one, 0), "output": (one, 0)}
    layer.set_weights(
        [np.reshape(x, w.shape) for x, w in zip(sum(values.values(), ()), layer.weights, strict=True)]
    )
    found = layer(np.ones((1, 140, 1), "float32"))
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    np.testing.assert_allclose(ops.convert_to_numpy(found), 1000, rtol=1e-3)


@layers
def test_all_in_sight_is_keras_attention(layer_class):
    """With stride 1, or a window over all, this is what Keras computes."""
    k = 9 if layer_class is LocalSelfAttention else 1
    layer, inputs = pair(layer_class, k)[0], inputs_of(9).astype("float32")
    of_keras = keras.layers.MultiHeadAttention(2, 3)
    of_keras.build((None, None, 6), (None, None, 6))
    # Keras keeps time before heads; the kernels are the same, its biases lack our axis of time.
    weights = [
        value.reshape(weight.shape)
        for value, weight in zip(layer.get_weights(), of_keras.weights, strict=True)
    ]
    of_keras.set_weights(weights)
    expected = ops.convert_to_numpy(of_keras(inputs, inputs))
    np.testing.assert_allclose(ops.convert_to_numpy(layer(inputs)), expected, rtol=1e-5, atol=1e-5)


@layers
@in_directions
def test_contract(layer_class, causal):
    mask = np.arange(7)[None, :] < np.array([[7], [4], [1]])
    check_layer(
        layer_class,
        {"heads": 2, "head_size": 3, LAYERS[layer_class]: 3, "causal": causal, "reference": not causal},
        inputs_of(7, batch=3).astype("float32"),
        expected_output_shape=(3, 7, 6),
        mask=mask,
    )


@layers
@pytest.mark.parametrize("jit_compile", [False] if IS_TORCH else [False, True])
def test_a_model_for_any_length(layer_class, jit_compile):
    """One model serves lengths that it did not know when it was made."""
    layer = pair(layer_class, 4)[0]
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    for length in (5, 8):
        batch = inputs_of(length).astype("float32")
        found = model.predict_on_batch(batch)
        np.testing.assert_allclose(found, ops.convert_to_numpy(layer(batch)), rtol=1e-4, atol=1e-5)
    assert np.isfinite(model.train_on_batch(batch, batch))


@layers
def test_a_mask_of_another_shape(layer_class):
    """Of 12 places it would fit the blocks of 10, and show two that are only there to fill them."""
    layer, inputs = pair(layer_class, 4)[0], inputs_of(10).astype("float32")
    for shape in ((2, 12), (2, 9), (10,), (1, 10)):
        with pytest.raises(ValueError, match=r"mask must be of shape \(batch, time\)"):
            layer(inputs, mask=np.ones(shape, bool))


@layers
def test_inputs_without_time_are_refused(layer_class):
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        layer_class(2, 3, 4)(np.zeros((2, 3), "float32"))


@layers
@pytest.mark.parametrize(("k", "heads"), [(0, 2), (2.0, 2), (2, 0)])
def test_bad_arguments(layer_class, k, heads):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        layer_class(heads, 3, k)
