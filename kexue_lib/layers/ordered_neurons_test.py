import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.autodiff import gradient
from kexue_lib.layers import OrderedNeuronsLSTMCell, cumax, levels
from kexue_lib.testing import check_layer

to_numpy = ops.convert_to_numpy
IS_TENSORFLOW, IS_TORCH = (keras.backend.backend() == name for name in ("tensorflow", "torch"))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def loop(cell, inputs):
    """The equations in float64, one step after the other: all h and all master forget gates."""
    kernel, recurrent, bias = (weight.astype("float64") for weight in cell.get_weights())
    hidden = memory = np.zeros((len(inputs), cell.units))
    outputs, masters = [], []
    for step in np.moveaxis(inputs, 1, 0):
        columns = step @ kernel + hidden @ recurrent + bias
        i, f, candidate, o = np.split(columns[:, : 4 * cell.units], 4, axis=-1)
        forget, admit = np.split(columns[:, 4 * cell.units :], 2, axis=-1)
        forget = np.cumsum(softmax(forget), axis=-1)
        admit = np.cumsum(softmax(admit)[:, ::-1], axis=-1)[:, ::-1]
        masters.append(forget)
        forget, admit = (np.repeat(gate, cell.chunk_size, axis=-1) for gate in (forget, admit))
        overlap, candidate = forget * admit, np.tanh(candidate)
        within = sigmoid(f) * memory + sigmoid(i) * candidate
        memory = overlap * within + (forget - overlap) * memory + (admit - overlap) * candidate
        hidden = sigmoid(o) * np.tanh(memory)
        outputs.append(hidden)
    return np.stack(outputs, axis=1), np.stack(masters, axis=1)


def random_cell(units, chunk_size, features, scale=1.0, dtype=None):
    cell = OrderedNeuronsLSTMCell(units, chunk_size, dtype=dtype)
    cell.build((None, features))
    random = np.random.default_rng(units)
    cell.set_weights([scale * random.normal(size=weight.shape) for weight in cell.get_weights()])
    return cell


def random_inputs(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


@keras.saving.register_keras_serializable(package="kexue")
class OrderedNeuronsOnItsOwn(keras.layers.RNN):
    """The layer around the cell, for the contract is about layers with one output."""

    def __init__(self, units, chunk_size, **kwargs):
        cell = OrderedNeuronsLSTMCell(units, chunk_size, dtype=kwargs.get("dtype"))
        super().__init__(cell, return_sequences=True, **kwargs)

    def get_config(self):
        return {**keras.layers.Layer.get_config(self), **self.cell_sizes()}

    def cell_sizes(self):
        return {"units": self.cell.units, "chunk_size": self.cell.chunk_size}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class TestCumax:
    LOGITS = np.random.default_rng(0).normal(size=(3, 7)).astype("float32")

    def test_steps_up_to_one_or_down_from_it(self):
        rising, falling = to_numpy(cumax(self.LOGITS)), to_numpy(cumax(self.LOGITS, from_right=True))
        assert np.all(np.diff(rising) >= 0)
        assert np.all(np.diff(falling) <= 0)
        np.testing.assert_allclose([rising[:, -1], falling[:, 0]], 1, rtol=1e-6)

    def test_is_the_cumulative_sum(self):
        expected = np.cumsum(softmax(self.LOGITS.astype("float64")), axis=-1)
        np.testing.assert_allclose(to_numpy(cumax(self.LOGITS)), expected, rtol=1e-5)
        mirrored = to_numpy(cumax(self.LOGITS[:, ::-1].copy(), from_right=True))[:, ::-1]
        np.testing.assert_allclose(mirrored, expected, rtol=1e-5)

    def test_papers_master_input_gate_differs_by_the_softmax(self):
        difference = to_numpy(cumax(self.LOGITS, from_right=True)) - (1 - to_numpy(cumax(self.LOGITS)))
        np.testing.assert_allclose(difference, softmax(self.LOGITS), atol=1e-6)

    @pytest.mark.parametrize("from_right", [False, True])
    def test_gradient(self, from_right):
        r"""$\partial \tilde f_k / \partial z_j = p_j ([j \le k] - \tilde f_k)$; from the right $j \ge k$."""
        logits = self.LOGITS[0].astype("float64")
        place = np.arange(7)
        counts = place[None, :] >= place[:, None] if from_right else place[None, :] <= place[:, None]
        step = counts @ softmax(logits)
        expected = softmax(logits) * (counts - step[:, None])
        for k in range(7):

            def entry(z, k=k):
                return cumax(z, from_right=from_right)[k]

            found = to_numpy(gradient(entry, ops.convert_to_tensor(self.LOGITS[0])))
            np.testing.assert_allclose(found, expected[k], atol=1e-6)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_summed_in_float32(self, dtype):
        """In bfloat16 a sum of thousandths stops growing at 1/4."""
        step = cumax(ops.zeros((1, 1000), dtype=dtype))
        assert keras.backend.standardize_dtype(step.dtype) == dtype
        expected = np.arange(1, 1001) / 1000
        np.testing.assert_allclose(to_numpy(ops.cast(step, "float32"))[0], expected, rtol=5e-3)


class TestCell:
    def test_contract(self):
        check_layer(
            OrderedNeuronsOnItsOwn,
            {"units": 6, "chunk_size": 2},
            random_inputs(2, 5, 3),
            expected_output_shape=(2, 5, 6),
            mask=np.arange(5)[None, :] < np.array([[5], [1]]),
        )

    @pytest.mark.parametrize(("units", "chunk_size", "length"), [(5, 1, 7), (6, 3, 4), (6, 2, 1)])
    def test_equals_the_loop(self, units, chunk_size, length):
        cell, inputs = random_cell(units, chunk_size, features=3), random_inputs(2, length, 3)
        found = to_numpy(keras.layers.RNN(cell, return_sequences=True)(inputs))
        np.testing.assert_allclose(found, loop(cell, inputs)[0], rtol=1e-4, atol=1e-6)

    @pytest.mark.skipif(not IS_TENSORFLOW, reason="JAX and Keras on PyTorch multiply in float32")
    def test_equals_the_loop_in_float64(self):
        cell = random_cell(6, 2, features=3, dtype="float64")
        inputs = random_inputs(2, 7, 3).astype("float64") / 3  # which float32 does not have
        outputs, forget = loop(cell, inputs)
        inputs = ops.convert_to_tensor(inputs, "float64")
        found = keras.layers.RNN(cell, return_sequences=True, dtype="float64")(inputs)
        np.testing.assert_allclose(to_numpy(found), outputs, rtol=0, atol=1e-12)
        depths = to_numpy(levels(cell, inputs))
        np.testing.assert_allclose(depths, 4 - forget.sum(axis=-1), rtol=0, atol=1e-12)

    def test_is_the_lstm_where_the_master_gates_are_one(self):
        """Softmaxes that are one-hot at the first and at the last level; the rest are the LSTM's weights."""
        cell, lstm = random_cell(6, 2, features=3), keras.layers.LSTMCell(6)
        kernel, recurrent, bias = cell.get_weights()
        kernel[:, 24:], recurrent[:, 24:], bias[24:] = 0, 0, [1e4, 0, 0, 0, 0, 1e4]
        cell.set_weights([kernel, recurrent, bias])
        lstm.build((None, 3))
        lstm.set_weights([kernel[:, :24], recurrent[:, :24], bias[:24]])
        inputs = random_inputs(2, 9, 3)
        assert np.all(to_numpy(cell.master_gates(inputs[:, 0], np.zeros((2, 6), "float32"))) == 1)
        found, expected = (
            to_numpy(keras.layers.RNN(some, return_sequences=True)(inputs)) for some in (cell, lstm)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_hard_levels_share_out_the_memory(self):
        """All 81 pairs of levels of history and input: overlap, history alone, input alone, neither."""
        cell = random_cell(9, 1, features=18)
        kernel, recurrent, bias = cell.get_weights()
        kernel[:, 36:], recurrent[:, 36:], bias[36:] = 1e4 * np.eye(18), 0, 0
        cell.set_weights([kernel, recurrent, bias])
        history, entry = (level.ravel() for level in np.mgrid[:9, :9])
        inputs = np.concatenate([np.eye(9)[history], np.eye(9)[entry]], axis=1).astype("float32")
        hidden, memory = random_inputs(2, 81, 9)
        found = to_numpy(cell(inputs, [hidden, memory])[1][1])
        columns = inputs @ kernel[:, :36] + hidden @ recurrent[:, :36] + bias[:36]
        i, f, candidate, _ = np.split(columns, 4, axis=-1)
        candidate, k = np.tanh(candidate), np.arange(9)
        stays, enters = k >= history[:, None], k <= entry[:, None]
        both = sigmoid(f) * memory + sigmoid(i) * candidate
        expected = np.select([stays & enters, stays, enters], [both, memory, candidate], default=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)

    def test_parameters(self):
        cell = OrderedNeuronsLSTMCell(128, 8)
        cell.build((None, 128))
        assert cell.count_params() == 139_808

    def test_starts_with_the_bias_of_keras(self):
        cell, lstm = OrderedNeuronsLSTMCell(4, 2), keras.layers.LSTMCell(4)
        cell.build((None, 3))
        lstm.build((None, 3))
        assert cell.get_weights()[2].tolist() == [*lstm.get_weights()[2], 0, 0, 0, 0]

    def test_starts_with_the_kernels_of_keras(self):
        """Uniform within the same bound, and rows of length 1 at right angles to each other."""
        cell, lstm = OrderedNeuronsLSTMCell(32, 8), keras.layers.LSTMCell(34)  # of as many columns
        cell.build((None, 64))
        lstm.build((None, 64))
        kernel, recurrent, _ = cell.get_weights()
        bound = np.sqrt(6 / (64 + 136))
        for some in (kernel, lstm.get_weights()[0]):
            assert some.shape == (64, 136)
            assert 0.99 * bound < np.abs(some).max() <= bound
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(32), atol=1e-5)

    def test_initial_states_have_the_dtype_of_the_policy(self):
        states = OrderedNeuronsLSTMCell(6, 2, dtype="mixed_bfloat16").get_initial_state(batch_size=3)
        assert [tuple(state.shape) for state in states] == [(3, 6), (3, 6)]
        assert {keras.backend.standardize_dtype(state.dtype) for state in states} == {"bfloat16"}

    def test_every_weight_is_trained(self):
        cell = random_cell(6, 2, features=3, scale=0.5)
        layer = keras.layers.RNN(cell)
        layer.build((None, 5, 3))

        def loss():
            return ops.sum(ops.square(layer(random_inputs(2, 5, 3))))

        for slope in gradient(loss, weights=layer.trainable_variables):
            assert np.all(to_numpy(slope) != 0)

    def test_a_language_model_of_padded_sentences_learns_and_is_saved(self, tmp_path):
        """Of no fixed length; compiled, for step by step JAX would take minutes."""
        tokens = keras.Input((None,), dtype="int32")
        embedded = keras.layers.Embedding(5, 4, mask_zero=True)(tokens)
        hidden = keras.layers.RNN(OrderedNeuronsLSTMCell(6, 2), return_sequences=True)(embedded)
        model = keras.Model(tokens, keras.layers.Dense(5)(hidden))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.02), loss=loss, jit_compile=not IS_TORCH)
        sentences = np.array([[1, 2, 3, 4, 1], [2, 3, 4, 0, 0]], "int32")
        losses = [model.train_on_batch(sentences, sentences) for _ in range(20)]
        assert losses[-1] < losses[0]
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        found, expected = (some.predict_on_batch(sentences) for some in (again, model))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"units": 0}, "units must be a whole number of at least 1, got 0"),
            ({"units": 4, "chunk_size": 0}, "chunk_size must be a whole number of at least 1, got 0"),
            ({"units": 4, "chunk_size": 3}, "chunk_size must be a divisor of units, 4, and less .* got 3"),
            ({"units": 4, "chunk_size": 4}, "chunk_size must be a divisor of units, 4, and less .* got 4"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            OrderedNeuronsLSTMCell(**arguments)


class TestLevels:
    def test_is_read_from_the_master_forget_gate(self):
        cell, inputs = random_cell(6, 2, features=3), random_inputs(2, 7, 3)
        expected = 4 - loop(cell, inputs)[1].sum(axis=-1)
        np.testing.assert_allclose(to_numpy(levels(cell, inputs)), expected, rtol=1e-5)

    def test_a_hard_step_is_read_exactly(self):
        """The first level is 1 and the last is n: nothing is off by one."""
        cell = random_cell(5, 1, features=5)
        kernel, recurrent, bias = cell.get_weights()
        kernel[:, 20:25], recurrent[:, 20:25], bias[20:25] = 1e4 * np.eye(5), 0, 0
        cell.set_weights([kernel, recurrent, bias])
        assert to_numpy(levels(cell, np.eye(5, dtype="float32")[None])).tolist() == [[1, 2, 3, 4, 5]]

    @pytest.mark.parametrize("padding", ["post", "pre"])
    def test_padding_changes_nothing(self, padding):
        cell, inputs = random_cell(6, 2, features=3), random_inputs(1, 5, 3)
        places = slice(0, 5) if padding == "post" else slice(3, 8)
        padded, mask = np.full((1, 8, 3), 7, "float32"), np.zeros((1, 8), bool)
        padded[:, places], mask[:, places] = inputs, True
        found = to_numpy(levels(cell, padded, mask))
        np.testing.assert_allclose(found[:, places], to_numpy(levels(cell, inputs)), rtol=1e-5)
        assert np.all(found[~mask] == 0)

    def test_of_a_layer_in_a_model(self):
        inputs = random_inputs(2, 5, 3)
        layer = keras.layers.RNN(OrderedNeuronsLSTMCell(6, 2), return_sequences=True)
        keras.Sequential([keras.Input((None, 3)), layer])
        assert levels(layer.cell, inputs).shape == (2, 5)

    @pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, dtype):
        cell = OrderedNeuronsLSTMCell(6, 2, dtype=dtype)
        cell.build((None, 3))
        found = levels(cell, random_inputs(2, 5, 3))
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert np.all((to_numpy(found) >= 1) & (to_numpy(found) <= 3))

    def test_bad_inputs(self):
        cell = random_cell(6, 2, features=3)
        with pytest.raises(ValueError, match=r"inputs must be of shape \(batch, time, features\)"):
            levels(cell, np.zeros((2, 3), "float32"))
        with pytest.raises(ValueError, match=r"mask must be of shape \(batch, time\)"):
            levels(cell, np.zeros((2, 4, 3), "float32"), np.ones((2, 3), bool))
