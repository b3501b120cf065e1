"""The kinds of scores against their equations."""

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.layers import MultiHeadAttention, SynthesizerAttention
from kexue_lib.testing import check_layer

IS_TORCH = keras.backend.backend() == "torch"
KINDS = SynthesizerAttention.KINDS
INPUTS = np.random.default_rng(0).normal(size=(3, 7, 6)).astype("float32")
MASK = np.arange(7)[None, :] < np.array([[7], [4], [0]])
kinds = pytest.mark.parametrize("kind", [*KINDS, "random+standard", "dense+random+factorised_dense"])


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)


def built(kind, length=9, **arguments):
    """A layer with 2 heads of 4 and weights that are all different from 0."""
    layer = SynthesizerAttention(kind, heads=2, head_size=4, length=length, **arguments)
    layer.build((None, None, 6))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def weights_of(layer):
    return {"/".join(weight.path.split("/")[1:]): to_numpy(weight) for weight in layer.weights}


def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@kinds
def test_contract(kind):
    check_layer(
        SynthesizerAttention,
        {"kind": kind, "heads": 2, "head_size": 4, "length": 9, "rank": 3, "causal": kind == "dense"},
        INPUTS,
        expected_output_shape=(3, 7, 6),
        mask=MASK,
    )


@kinds
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_softmax_and_values(kind, causal, padded):
    """From the scores on, in NumPy: rows sum to 1 over what is seen, and to 0 where nothing is."""
    layer = built(kind, causal=causal)
    seen = np.broadcast_to(np.tri(7, dtype=bool) if causal else np.ones((7, 7), bool), (3, 2, 7, 7))
    seen = seen & MASK[:, None, None, :] if padded else seen
    scores = np.where(seen, np.broadcast_to(to_numpy(layer.scores(INPUTS)), seen.shape), -1e9)
    values = to_numpy(layer.value_dense(INPUTS))
    expected = to_numpy(layer.output_dense((softmax(scores) * seen @ values).astype("float32")))
    found = to_numpy(layer(INPUTS, mask=MASK if padded else None))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_standard_is_attention():
    layer, other = built("standard"), MultiHeadAttention(2, 4)
    other.build(INPUTS.shape, INPUTS.shape)
    layer_weights = {weight.path: weight for weight in layer.weights}
    for weight in other.weights:
        name = "/".join(weight.path.split("/")[-2:])
        (path,) = (path for path in layer_weights if path.endswith(name))
        weight.assign(layer_weights[path])
    np.testing.assert_allclose(to_numpy(layer(INPUTS)), to_numpy(other(INPUTS, INPUTS)), rtol=1e-4, atol=1e-5)


def test_dense():
    layer = built("dense")
    first, first_bias, second, second_bias = (to_numpy(weight) for weight in layer.parts[0].weights)
    for head in range(2):
        hidden = np.maximum(INPUTS @ first[:, head] + first_bias[head], 0)
        expected = (hidden @ second[head] + second_bias[head])[..., :7]
        np.testing.assert_allclose(to_numpy(layer.scores(INPUTS))[:, head], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["random", "fixed_random"])
def test_random_is_the_matrix_cut_to_length(kind):
    layer = built(kind)
    matrix = to_numpy(layer.parts[0].matrix)
    assert matrix.shape == (2, 9, 9)
    np.testing.assert_array_equal(to_numpy(layer.scores(INPUTS))[0], matrix[:, :7, :7])
    assert layer.parts[0].matrix.trainable == (kind == "random")


def test_fixed_random_is_not_trained_and_is_saved(tmp_path):
    inputs = keras.Input((7, 6))
    model = keras.Model(inputs, SynthesizerAttention("fixed_random", 2, 4, length=9)(inputs))
    matrix = to_numpy(model.layers[1].parts[0].matrix)
    model.compile("sgd", "mse")
    model.train_on_batch(INPUTS, INPUTS)
    np.testing.assert_array_equal(to_numpy(model.layers[1].parts[0].matrix), matrix)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(again.layers[1].parts[0].matrix), matrix)


@pytest.mark.parametrize("kind", ["random", "factorised_random"])
def test_random_scores_start_with_variance_1(kind):
    layer = SynthesizerAttention(kind, heads=2, head_size=4, length=128)
    layer.build((None, None, 6))
    scores = to_numpy(layer.scores(np.zeros((1, 128, 6), "float32")))
    assert scores.var() == pytest.approx(1, abs=0.3)  # of 1024 numbers in each factor


def test_factorised_random():
    layer = built("factorised_random", rank=3)
    left, right = (to_numpy(weight) for weight in layer.parts[0].weights)
    scores = to_numpy(layer.scores(INPUTS))
    np.testing.assert_allclose(scores[0], (left @ right.transpose(0, 2, 1))[:, :7, :7], rtol=1e-4, atol=1e-5)
    assert np.all(np.linalg.matrix_rank(scores[0], tol=1e-4) == 3)


@pytest.mark.parametrize(
    ("length", "a", "b"), [(9, 3, 3), (7, 3, 3), (8, 3, 3), (64, 8, 8), (13, 4, 4), (1, 1, 1)]
)
def test_factorised_dense(length, a, b):
    """Every column is another product of a column of each factor."""
    layer, inputs = built("factorised_dense", length), np.random.default_rng(2).normal(size=(1, length, 6))
    part = layer.parts[0]
    groups, members = (
        to_numpy(outputs(hidden(inputs.astype("float32")))) for hidden, outputs in (part.groups, part.members)
    )
    assert (groups.shape[-1], members.shape[-1]) == (a, b)
    columns = np.arange(length)
    expected = groups[..., columns // b] * members[..., columns % b]
    found = to_numpy(layer.scores(inputs.astype("float32")))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert len({tuple(column) for column in found[0, 0].T}) == length


def test_the_mixture_is_one_softmax_of_a_mean():
    layer = built("dense+random+standard")
    parts = [np.broadcast_to(to_numpy(part(INPUTS)), (3, 2, 7, 7)) for part in layer.parts]
    proportions = softmax(to_numpy(layer.mixture))
    np.testing.assert_allclose(to_numpy(layer.proportions()), proportions, rtol=1e-5)
    expected = np.tensordot(proportions, parts, axes=1)
    np.testing.assert_allclose(to_numpy(layer.scores(INPUTS)), expected, rtol=1e-4, atol=1e-5)


def test_proportions_start_equal_and_are_trained():
    inputs = keras.Input((7, 6))
    layer = SynthesizerAttention("random+standard", 2, 4, length=7)
    model = keras.Model(inputs, layer(inputs))
    assert to_numpy(layer.proportions()).tolist() == [0.5, 0.5]
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(INPUTS, INPUTS)
    assert to_numpy(layer.proportions())[0] != 0.5


def test_number_of_parameters():
    """Of the scores, without biases, for size 512, 8 heads of 64 and length 256."""
    counts = {}
    for kind in KINDS:
        layer = SynthesizerAttention(kind, heads=8, head_size=64, length=256)
        layer.build((None, None, 512))
        counts[kind] = sum(
            np.prod(weight.shape) for weight in layer.parts[0].weights if "bias" not in weight.path
        )
    assert counts == {
        "standard": 524_288,
        "dense": 393_216,
        "random": 524_288,
        "fixed_random": 524_288,
        "factorised_dense": 2 * (512 * 512 + 8 * 64 * 16),
        "factorised_random": 32_768,
    }


@pytest.mark.parametrize(
    ("kind", "is_equivariant"), [("standard", True), ("dense", False), ("random", False)]
)
def test_only_standard_does_not_know_the_order(kind, is_equivariant):
    layer, order = built(kind), np.random.default_rng(3).permutation(7)
    same = np.allclose(to_numpy(layer(INPUTS[:, order])), to_numpy(layer(INPUTS))[:, order], atol=1e-4)
    assert same == is_equivariant


@pytest.mark.parametrize("kind", ["+".join(KINDS[:3]), "+".join(KINDS[3:])])
def test_a_model_for_any_length(kind):
    layer = built(kind, causal=True)
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, layer(keras.layers.Masking()(inputs)))
    model.compile("sgd", "mse", jit_compile=not IS_TORCH)
    for length in (5, 9):
        batch = np.random.default_rng(length).normal(size=(2, length, 6)).astype("float32")
        batch[0, 3:] = 0
        expected = to_numpy(layer(batch, mask=np.any(batch != 0, axis=-1)))
        np.testing.assert_allclose(model.predict_on_batch(batch), expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(model.train_on_batch(batch, batch))


def test_inputs_that_are_too_long():
    """Already when a model is made."""
    for layer, inputs in (
        (built("random", length=7), np.zeros((1, 8, 6), "float32")),
        (SynthesizerAttention("random", 2, 4, length=7), keras.Input((8, 6))),
    ):
        with pytest.raises(ValueError, match="inputs must be no longer than 7 places, got 'length 8'"):
            layer(inputs)


def test_inputs_without_time_are_refused():
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        SynthesizerAttention("random", 2, 4, length=7)(np.zeros((2, 3), "float32"))


def test_a_mask_of_another_shape():
    with pytest.raises(ValueError, match=r"mask must be of shape \(batch, time\)"):
        built("random")(INPUTS, mask=MASK[:, :6])


@pytest.mark.parametrize("kind", ["", "sparse", "random+random", "random+", 3, ["random"]])
def test_unknown_kinds(kind):
    with pytest.raises(ValueError, match="kind must be one of standard, dense, random"):
        SynthesizerAttention(kind, 2, 4, length=7)


@pytest.mark.parametrize("name", ["heads", "head_size", "length", "rank"])
def test_bad_arguments(name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
        SynthesizerAttention("random", **{"heads": 2, "head_size": 4, "length": 7, name: 0})
