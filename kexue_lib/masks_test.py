"""The masks against their definitions, and the softmax where all is masked."""

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib import masks
from kexue_lib.autodiff import gradient
from kexue_lib.layers import masked_softmax
from kexue_lib.precision import at_least_float32

IS_JAX = keras.backend.backend() == "jax"
DTYPES = ["float16", "bfloat16", "float32", *([] if IS_JAX else ["float64"])]
LENGTHS = [1, 2, 7, 12]


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)


def table(rule, *shape):
    """The mask of a rule about i and j."""
    return np.array([[rule(i, j) for j in range(shape[-1])] for i in range(shape[0])])


def test_padding():
    tokens = np.array([[7, 3, 0, 0], [0, 5, 0, 2], [0, 0, 0, 0]])
    expected = [[1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0]]
    np.testing.assert_array_equal(to_numpy(masks.padding(tokens)), np.array(expected, bool))


def test_padding_in_a_model_for_any_length():
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, masks.padding(tokens))
    assert to_numpy(model(np.array([[0, 5, 0, 2]]))).tolist() == [[True, True, False, True]]


@pytest.mark.parametrize("length", LENGTHS)
def test_causal(length):
    np.testing.assert_array_equal(to_numpy(masks.causal(length)), table(lambda i, j: j <= i, length, length))


def test_causal_in_pieces_is_causal():
    pieces = [masks.causal(count, 9, offset) for count, offset in ((4, 0), (1, 4), (4, 5))]
    np.testing.assert_array_equal(np.concatenate([to_numpy(p) for p in pieces]), to_numpy(masks.causal(9)))


def test_prefix():
    """Source rows see the source, target rows the source and what is before them."""
    segments = np.array([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    for row, found in zip(segments, to_numpy(masks.prefix(segments)), strict=True):
        rule = table(lambda i, j, row=row: row[j] == 0 or (row[i] == 1 and j <= i), 5, 5)
        np.testing.assert_array_equal(found, rule)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
def test_prefix_of_other_types(dtype):
    """More than 255 of them: counted in eight bits they would start again at 0."""
    segments = np.arange(300)[None, :] >= 2
    expected = table(lambda i, j: j < 2 or j <= i, 300, 300)
    np.testing.assert_array_equal(to_numpy(masks.prefix(segments.astype(dtype)))[0], expected)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("k", [1, 2, 3, 12, 20])
def test_band_and_strided(length, k):
    near = table(lambda i, j: abs(i - j) <= k, length, length)
    in_step = table(lambda i, j: (i - j) % k == 0, length, length)
    np.testing.assert_array_equal(to_numpy(masks.band(length, k)), near)
    np.testing.assert_array_equal(to_numpy(masks.strided(length, k)), in_step)


@pytest.mark.parametrize("n", [1, 5, 16, 33])
@pytest.mark.parametrize("k", [2, 3, 8])
def test_number_of_scores(n, k):
    """The closed forms of article 6853, with n = qk + r."""
    q, r = divmod(n, k)
    strided, near = to_numpy(masks.strided(n, k)), to_numpy(masks.band(n, k))
    assert strided.sum() == r * (q + 1) ** 2 + (k - r) * q**2
    if k < n:
        assert near.sum() == n * (2 * k + 1) - k * (k + 1)
    assert (strided & near).sum() == n + 2 * max(n - k, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_apply(dtype):
    scores = np.array([[1.0, 2.0, -3.0], [6e4, -6e4, 6e4], [1.0, 2.0, 3.0]])
    mask = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    weights = masks.apply(ops.convert_to_tensor(scores, dtype), mask)
    assert keras.backend.standardize_dtype(weights.dtype) == dtype
    expected = [[1 / (1 + np.e), np.e / (1 + np.e), 0], [1, 0, 0], [0, 0, 0]]
    tolerance = {"float64": 1e-15, "float32": 1e-6}.get(dtype, 4e-3)
    np.testing.assert_allclose(to_numpy(at_least_float32(weights)), expected, rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_long_row_in_half_precision(dtype):
    """The sum of 70,000 ones is infinite in float16; it may stop at 256 in bfloat16."""
    weights = masks.apply(ops.zeros((1, 70_000), dtype=dtype), np.ones((1, 70_000), bool))
    np.testing.assert_allclose(to_numpy(at_least_float32(weights)), 1 / 70_000, rtol=1e-2)


def test_apply_to_whole_numbers():
    weights = to_numpy(masks.apply(np.array([[3, 3, 9]]), np.array([[1, 1, 0]])))
    assert weights.dtype == np.float32
    assert weights.tolist() == [[0.5, 0.5, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_apply(dtype):
    """Of the weight a of one of two: a (1 - a), its negative, and 0 where nothing counts; never NaN."""
    scores = ops.convert_to_tensor([[1.0, 2.0, np.nan], [1.0, np.inf, 3.0]], dtype)
    mask = np.array([[1, 1, 0], [0, 0, 0]], bool)
    slope = gradient(lambda x: masks.apply(x, mask)[:, 0], scores)
    a = 1 / (1 + np.e)
    expected = [[a * (1 - a), -a * (1 - a), 0], [0, 0, 0]]
    np.testing.assert_allclose(
        to_numpy(ops.cast(slope, "float32")), expected, rtol=1e-2 if "16" in dtype else 1e-5
    )


def test_masked_softmax_is_the_same():
    scores, mask = np.random.default_rng(0).normal(size=(3, 5)).astype("float32"), np.eye(3, 5) == 0
    np.testing.assert_array_equal(to_numpy(masked_softmax(scores, mask)), to_numpy(masks.apply(scores, mask)))


@pytest.mark.parametrize("function", [masks.padding, masks.prefix])
def test_tokens_without_a_batch(function):
    with pytest.raises(ValueError, match=r"must be of shape \(batch, time\), got 'shape \(3,\)'"):
        function(np.array([1, 2, 0]))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (masks.band, (5, -1), "width must be a whole number of at least 0, got -1"),
        (masks.band, (-5, 1), "length must be a whole number of at least 0, got -5"),
        (masks.strided, (5, 0), "stride must be a whole number of at least 1, got 0"),
        (masks.strided, (5, 2.0), "stride must be a whole number of at least 1, got 2.0"),
        (masks.strided, (5.0, 2), "length must be a whole number of at least 0, got 5.0"),
        (masks.causal, (2.5,), "queries must be a whole number of at least 0, got 2.5"),
        (masks.causal, (2, -1), "keys must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_mask_of_another_shape():
    with pytest.raises(ValueError, match="mask must be broadcastable"):
        masks.apply(np.zeros((2, 3)), np.ones((2, 4), bool))
