import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.autodiff import gradient
from kexue_lib.layers import GatedConv1D
from kexue_lib.testing import check_layer

to_numpy = ops.convert_to_numpy
JIT_COMPILE = [False] if keras.backend.backend() == "torch" else [False, True]
INPUTS = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_with(kernel, gate_bias, candidate_bias=0.0, **arguments):
    """Return a layer for three features whose kernel is constant."""
    layer = GatedConv1D(**arguments)
    layer.build((None, 7, 3))
    shape = layer.convolution.kernel.shape
    layer.set_weights([np.full(shape, kernel), np.repeat([gate_bias, candidate_bias], 3)])
    return layer


def random_layer(**arguments):
    layer = layer_with(0, 0, **arguments)
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.get_weights()])
    return layer


def test_contract():
    check_layer(
        GatedConv1D,
        {"kernel_size": 5, "dilation_rate": 2, "gate_dropout": 0.25, "gate_noise": 0.1},
        INPUTS,
        expected_output_shape=(2, 7, 3),
        mask=np.arange(7)[None, :] < np.array([[7], [2]]),
    )


@pytest.mark.parametrize(("kernel_size", "dilation_rate"), [(1, 1), (3, 1), (3, 2), (3, 4), (5, 1)])
def test_equation(kernel_size, dilation_rate):
    layer = random_layer(kernel_size=kernel_size, dilation_rate=dilation_rate)
    kernel, bias = layer.get_weights()
    reach = kernel_size // 2 * dilation_rate
    padded = np.pad(INPUTS, ((0, 0), (reach, reach), (0, 0)))
    taps = [padded[:, k * dilation_rate :][:, :7] @ kernel[k] for k in range(kernel_size)]
    gate, candidate = np.split(sum(taps) + bias, 2, axis=-1)
    expected = INPUTS * sigmoid(gate) + candidate * sigmoid(-gate)
    np.testing.assert_allclose(to_numpy(layer(INPUTS)), expected, rtol=1e-4, atol=1e-5)


def test_an_open_gate_keeps_the_inputs_and_a_closed_one_takes_the_candidate():
    np.testing.assert_array_equal(to_numpy(layer_with(0, gate_bias=1e4)(INPUTS)), INPUTS)
    closed = to_numpy(layer_with(0, gate_bias=-1e4, candidate_bias=5.0)(INPUTS))
    np.testing.assert_array_equal(closed, np.full_like(INPUTS, 5))


def test_without_weights_a_layer_halves():
    """The two halves of the gate add up to 1, and the candidate is 0: six layers leave 2^-6."""
    halved = INPUTS
    for _ in range(6):
        halved = layer_with(0, 0)(halved)
    np.testing.assert_allclose(to_numpy(halved), INPUTS * 2.0**-6, rtol=1e-6)


@pytest.mark.parametrize(("rates", "reach"), [((1,) * 6, 6), ((1, 2, 4), 7), ((1, 2, 4, 8, 16, 1), 32)])
def test_receptive_field(rates, reach):
    """Step i depends on step j if and only if |i - j| is at most the sum of the rates."""
    keras.utils.set_random_seed(0)
    layers = [GatedConv1D(dilation_rate=rate) for rate in rates]
    length, middle = 2 * reach + 5, reach + 2

    def middle_step(inputs):
        for layer in layers:
            inputs = layer(inputs)
        return inputs[:, middle]

    slope = to_numpy(gradient(middle_step, ops.ones((1, length, 2))))[0]
    sees = np.any(slope != 0, axis=-1)
    assert sees.tolist() == [abs(step - middle) <= reach for step in range(length)]


def test_shifting_the_inputs_shifts_the_outputs():
    layer = random_layer(dilation_rate=2)
    whole, shifted = to_numpy(layer(INPUTS)), to_numpy(layer(INPUTS[:, 1:]))
    np.testing.assert_allclose(shifted[:, 2:], whole[:, 3:], rtol=1e-5)


@pytest.mark.parametrize("hidden", [9.0, np.nan])
@pytest.mark.parametrize("length", [3, 4])
def test_padding_changes_nothing(length, hidden):
    """Nor does it change a gradient of the weights."""
    layer = random_layer(dilation_rate=2)
    padded = INPUTS.copy()
    padded[:, length:] = hidden
    mask = np.tile(np.arange(7) < length, (2, 1))
    found = to_numpy(layer(padded, mask=mask))
    np.testing.assert_allclose(found[:, :length], to_numpy(layer(INPUTS[:, :length])), rtol=1e-4, atol=1e-6)
    assert np.all(found[:, length:] == 0)
    slopes = gradient(lambda: ops.square(layer(padded, mask=mask)), weights=layer.trainable_weights)
    wanted = gradient(lambda: ops.square(layer(INPUTS[:, :length])), weights=layer.trainable_weights)
    for slope, other in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(to_numpy(slope), to_numpy(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit_compile", JIT_COMPILE)
def test_consumes_the_mask_that_keras_passes(jit_compile):
    tokens = keras.Input((None,), dtype="int32")
    embedding, layer = keras.layers.Embedding(5, 3, mask_zero=True), random_layer()
    model = keras.Model(tokens, layer(embedding(tokens)))
    model.compile(jit_compile=jit_compile)
    found = model.predict(np.array([[1, 2, 4, 0, 0]]), verbose=0)
    expected = to_numpy(layer(embedding(np.array([[1, 2, 4]]))))
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-4, atol=1e-6)
    assert np.all(found[:, 3:] == 0)


@pytest.mark.parametrize("jit_compile", JIT_COMPILE)
@pytest.mark.parametrize("dilation_rate", [1, 4])
def test_learns_at_every_rate(dilation_rate, jit_compile):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, GatedConv1D(dilation_rate=dilation_rate)(inputs))
    model.compile(keras.optimizers.Adam(0.05), loss="mse", jit_compile=jit_compile)
    losses = [model.train_on_batch(INPUTS, INPUTS[:, ::-1]) for _ in range(5)]
    assert losses[-1] < losses[0]


class TestDisturbedGate:
    """With a bias of 2 and no kernel the gate is 2, and ones come out as its sigmoid."""

    ONES = np.ones((8, 125, 3), "float32")

    def gate(self, **arguments):
        share = to_numpy(layer_with(0, gate_bias=2.0, **arguments)(self.ONES, training=True))
        return np.log(share / (1 - share))

    def test_noise(self):
        gate = self.gate(gate_noise=0.1)
        assert 1.8 <= gate.min() < 1.81
        assert 2.19 < gate.max() <= 2.2001
        assert abs(gate.mean() - 2) < 0.01

    def test_dropout(self):
        gate = self.gate(gate_dropout=0.2)
        dropped = np.abs(gate) < 1e-5
        assert 0.16 < dropped.mean() < 0.24
        np.testing.assert_allclose(gate[~dropped], 2 / 0.8, rtol=1e-4)

    def test_only_in_training(self):
        quiet = layer_with(0, gate_bias=2.0, gate_noise=0.5, gate_dropout=0.5)(self.ONES)
        np.testing.assert_allclose(to_numpy(quiet), sigmoid(2.0), rtol=1e-5)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_mixed_precision(self, dtype):
        layer = layer_with(0, gate_bias=2.0, gate_noise=0.1, gate_dropout=0.2, dtype=f"mixed_{dtype}")
        found = layer(self.ONES, training=True)
        assert keras.backend.standardize_dtype(found.dtype) == dtype
        values = to_numpy(ops.cast(found, "float32"))
        assert values.min() == 0.5
        assert values.max() == pytest.approx(sigmoid(2.2 / 0.8), abs=0.01)

    def test_every_call_draws_anew(self):
        layer = layer_with(0, gate_bias=2.0, gate_noise=0.1)
        first, second = (to_numpy(layer(self.ONES, training=True)) for _ in range(2))
        assert np.any(first != second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be a whole number of at least 1, got 0"),
        ({"dilation_rate": 1.5}, r"dilation_rate must be a whole number of at least 1, got 1\.5"),
        ({"gate_dropout": 1}, "gate_dropout must be less than 1, got 1"),
        ({"gate_noise": -0.1}, r"gate_noise must be a finite number of at least 0, got -0\.1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GatedConv1D(**arguments)


def test_a_mask_of_another_shape():
    with pytest.raises(ValueError, match=r"mask must be of shape \(batch, time\)"):
        GatedConv1D()(INPUTS, mask=np.ones((2, 6), bool))


def test_inputs_without_time_are_refused():
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        GatedConv1D()(np.zeros((2, 3), "float32"))
