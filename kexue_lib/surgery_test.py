import keras
import numpy as np
import pytest
from keras import layers, ops

from kexue_lib.surgery import replace_layer, submodel

INPUTS = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
MASKABLE = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")


def dense(name, size=4):
    return layers.Dense(size, activation="tanh", name=name)


def residual():
    """One, two, and their sum: after `two`, two tensors are alive.

    input ─ one ─┬─ two ─┐
                 └───────┴─ sum ─ three ─ four
    """
    inputs = keras.Input((4,), name="input")
    one = dense("one")(inputs)
    total = layers.Add(name="sum")([one, dense("two")(one)])
    return keras.Model(inputs, dense("four", 2)(dense("three")(total)), name="residual")


def chain(*sizes):
    sizes = sizes or (4, 4, 2)
    names = ["one", "two", "three"]
    return keras.Sequential([keras.Input((4,)), *map(dense, names, sizes)], name="chain")


def outputs_of(model, *names):
    """Outputs of layers of a residual model, run by hand."""
    one = model.get_layer("one")(INPUTS)
    two = model.get_layer("two")(one)
    three = model.get_layer("three")(one + two)
    values = {"one": one, "two": two, "sum": one + two, "three": three}
    return [values[name] for name in names]


def assert_close(found, expected):
    found, expected = ops.convert_to_numpy(found), ops.convert_to_numpy(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


class TestSubmodel:
    @pytest.mark.parametrize("start", ["one", "sum", "three"])
    def test_gives_the_same_from_the_middle(self, start):
        model = residual()
        part = submodel(model, start, "four")
        assert_close(part(outputs_of(model, start)[0]), model(INPUTS))

    def test_start_is_left_out_and_end_is_not(self):
        model = residual()
        part = submodel(model, "sum", "three")
        assert [layer.name for layer in part.layers[1:]] == ["three"]
        assert_close(part(INPUTS), model.get_layer("three")(INPUTS))

    def test_from_the_input(self):
        model = residual()
        part = submodel(model, "input", "two")
        assert_close(part(INPUTS), outputs_of(model, "two")[0])

    @pytest.mark.parametrize("names", [["one", "two"], ["two", "one"]])
    def test_through_a_residual_join(self, names):
        """In the order of the names, which is seen by blocking one arm."""
        model = residual()
        part = submodel(model, names, "sum")
        one, two = outputs_of(model, "one", "two")
        assert_close(part([{"one": one, "two": two}[name] for name in names]), one + two)
        assert [tensor.shape for tensor in part.inputs] == [(None, 4), (None, 4)]
        weighted = submodel(
            replace_layer(model, "sum", lambda layer: layers.Subtract(name="sum")), names, "sum"
        )
        assert_close(weighted([{"one": one, "two": two}[name] for name in names]), one - two)

    def test_one_name_in_a_list(self):
        part = submodel(residual(), ["one"], "four")
        assert (part.input.shape, part.output.shape) == ((None, 4), (None, 2))

    def test_counts_only_what_it_uses(self):
        model = residual()
        assert submodel(model, "sum", "four").count_params() == (4 * 4 + 4) + (4 * 2 + 2)
        assert model.count_params() == 3 * (4 * 4 + 4) + (4 * 2 + 2)

    @pytest.mark.parametrize("make", [residual, chain])
    def test_shares_weights_and_leaves_the_model_alone(self, make):
        model = make()
        before = ops.convert_to_numpy(model(INPUTS))
        part = submodel(model, "one", "three")
        assert part.get_layer("three") is model.get_layer("three")
        assert_close(model(INPUTS), before)
        part.compile(keras.optimizers.SGD(0.1), loss="mse")
        part.train_on_batch(INPUTS, np.ones((3, part.output_shape[-1])))
        assert not np.allclose(ops.convert_to_numpy(model(INPUTS)), before)

    def test_of_a_sequential_model(self):
        model = chain()
        assert_close(submodel(model, "one", "three")(model.layers[0](INPUTS)), model(INPUTS))

    def test_of_a_model_that_shares_its_layers(self):
        """`layer.output` belongs to the first model a layer was in: cutting the second with it fails."""
        first = residual()
        second = replace_layer(first, "two", lambda layer: dense("two"))
        with pytest.raises(ValueError, match="not connected to `inputs`"):
            keras.Model(second.get_layer("one").output, second.get_layer("two").output)
        part = submodel(second, "one", "four")
        assert part.get_layer("two") is second.get_layer("two")
        assert_close(part(outputs_of(second, "one")[0]), second(INPUTS))

    def test_of_operations_that_are_no_layers(self):
        inputs = keras.Input((4,))
        one = dense("one")(inputs)
        model = keras.Model(inputs, dense("two")(one + ops.tanh(one)))
        add = next(operation.name for operation in model.operations if operation.name.startswith("add"))
        first = model.get_layer("one")(INPUTS)
        assert_close(submodel(model, "one", add)(first), first + ops.tanh(first))
        assert_close(submodel(model, add, "two")(first + ops.tanh(first)), model(INPUTS))

    def test_of_a_layer_with_two_outputs(self):
        inputs = keras.Input((5, 2))
        output, state = layers.SimpleRNN(3, return_state=True, name="rnn")(inputs)
        model = keras.Model(inputs, layers.Subtract(name="difference")([output, 2 * state]))
        both = [
            tensor + step
            for step, tensor in enumerate(submodel(model, model.layers[0].name, "rnn")(MASKABLE))
        ]
        scale = next(
            operation.name for operation in model.operations if operation.name.startswith("multiply")
        )
        assert_close(submodel(model, ["rnn"], "difference")(both), both[0] - 2 * both[1])
        assert submodel(model, "rnn", scale).output_shape == (None, 3)

    def test_saves_and_loads(self, tmp_path):
        part = submodel(residual(), ["one", "two"], "four")
        part.save(tmp_path / "part.keras")
        loaded = keras.saving.load_model(tmp_path / "part.keras")
        assert_close(loaded([INPUTS, 2 * INPUTS]), part([INPUTS, 2 * INPUTS]))

    def test_an_input_beside_a_tensor_from_the_middle(self, tmp_path):
        """Keras alone would leave a model that cannot be saved any more."""
        model = residual()
        part = submodel(model, ["input", "two"], "four")
        assert part.get_layer("three") is model.get_layer("three")
        assert_close(part([keras.ops.convert_to_tensor(INPUTS), outputs_of(model, "two")[0]]), model(INPUTS))
        for number, saved in enumerate([model, part]):
            saved.save(tmp_path / f"{number}.keras")
        assert_close(keras.saving.load_model(tmp_path / "0.keras")(INPUTS), model(INPUTS))
        loaded = keras.saving.load_model(tmp_path / "1.keras")
        assert_close(loaded([INPUTS, 2 * INPUTS]), part([INPUTS, 2 * INPUTS]))

    def test_a_mask_crosses_the_cut_as_a_tensor(self):
        inputs = keras.Input((5,), dtype="int32")
        embedded = layers.Embedding(3, 2, mask_zero=True, name="words")(inputs)
        model = keras.Model(inputs, layers.GlobalAveragePooling1D(name="mean")(embedded))
        tokens = np.array([[1, 2, 0, 0, 0]])
        vectors = model.get_layer("words")(tokens)
        mask = next(
            operation.name for operation in model.operations if operation.name.startswith("not_equal")
        )
        with pytest.raises(ValueError, match=rf"'mean' needs; \['{mask}'\] are missing"):
            submodel(model, "words", "mean")
        part = submodel(model, ["words", mask], "mean")
        assert_close(part([ops.convert_to_numpy(vectors), tokens != 0]), model(tokens))

    @pytest.mark.parametrize("arguments", [("two_", "four"), ("one", "for"), (["one", "tow"], "four")])
    def test_unknown_name(self, arguments):
        with pytest.raises(
            ValueError, match=r"must be the name of a layer of the model, such as .*'(two|four)'"
        ):
            submodel(residual(), *arguments)

    def test_unknown_name_that_is_near_none(self):
        listed = "such as 'input', 'one', 'two', 'sum', 'three', 'four', got 'xyzzy'"
        with pytest.raises(ValueError, match=f"end must be the name of a layer of the model, {listed}"):
            submodel(residual(), "one", "xyzzy")

    @pytest.mark.parametrize(("start", "missing"), [("two", "one"), (["two"], "one")])
    def test_one_arm_of_a_residual(self, start, missing):
        message = rf"start must be all that 'four' needs; \['{missing}'\] are missing, got \['two'\]"
        with pytest.raises(ValueError, match=message):
            submodel(residual(), start, "four")

    def test_another_branch_is_missing_by_its_last_layer(self):
        left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
        joined = layers.Concatenate(name="both")([dense("one")(left), dense("three")(dense("two")(right))])
        model = keras.Model([left, right], dense("last")(joined))
        with pytest.raises(ValueError, match=r"'last' needs; \['three'\] are missing"):
            submodel(model, "one", "last")
        assert submodel(model, ["one", "right"], "last").input_shape == [(None, 4), (None, 4)]
        assert submodel(model, "two", "three").input_shape == (None, 4)  # what joins later does not matter

    def test_one_start_may_be_behind_another(self):
        """What the second needs beside the first is before the cut, and not missing."""
        left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
        one = dense("one")(left)
        two = layers.Add(name="two")([one, right])
        model = keras.Model([left, right], layers.Subtract(name="last")([one, two]))
        assert_close(submodel(model, ["one", "two"], "last")([INPUTS, 3 * INPUTS]), -2 * INPUTS)

    @pytest.mark.parametrize(
        ("start", "end", "unused"),
        [
            ("four", "one", "four"),
            (["sum", "one"], "four", "one"),
            ("one", "one", "one"),
            (["one", "two"], "two", "one"),
        ],
        ids=["backwards", "one behind the other", "the same", "end among start"],
    )
    def test_end_must_be_behind(self, start, end, unused):
        message = (
            rf"end must be a layer behind each layer of start, which \['{unused}'.*\] are not, got '{end}'"
        )
        with pytest.raises(ValueError, match=message):
            submodel(residual(), start, end)

    def test_no_start(self):
        with pytest.raises(ValueError, match="start must be at least one layer"):
            submodel(residual(), [], "four")

    def test_a_layer_that_is_called_twice(self):
        inputs, shared = keras.Input((4,)), dense("shared")
        model = keras.Model(inputs, dense("last")(shared(shared(inputs))))
        message = "must be a layer that the model calls once; it calls this one 2 times, got 'shared'"
        with pytest.raises(ValueError, match=f"start {message}"):
            submodel(model, "shared", "last")
        with pytest.raises(ValueError, match=f"end {message}"):
            submodel(model, model.layers[0].name, "shared")

    @pytest.mark.parametrize("model", [keras.Sequential([dense("one"), dense("two")]), keras.Model(), 3])
    def test_other_models(self, model):
        with pytest.raises(ValueError, match="model must be functional, or sequential and built"):
            submodel(model, "one", "two")


class TestReplaceLayer:
    @pytest.mark.parametrize("make", [residual, chain])
    def test_shares_all_other_layers(self, make):
        model = make()
        before = ops.convert_to_numpy(model(INPUTS))
        kernels = {name: np.array(model.get_layer(name).get_weights()[0]) for name in ("one", "two", "three")}
        other = replace_layer(model, "two", lambda layer: dense("two"))
        assert type(other) is type(model)
        for old, new in zip(model.layers, other.layers, strict=True):
            shared = old.name != "two" and not isinstance(old, layers.InputLayer)
            assert (old is new) == shared, old.name
        assert_close(model(INPUTS), before)
        assert not np.allclose(ops.convert_to_numpy(other(INPUTS)), before)
        other.compile(keras.optimizers.SGD(0.1), loss="mse")
        other.train_on_batch(INPUTS, np.ones((3, 2)))
        for name in ("one", "two", "three"):
            trained = not np.array_equal(model.get_layer(name).get_weights()[0], kernels[name])
            assert trained == (name != "two")

    @pytest.mark.parametrize("make", [residual, chain])
    def test_the_new_layer_is_used(self, make):
        model = make()
        new = dense("new")
        other = replace_layer(model, "two", lambda layer: new)
        new.set_weights(model.get_layer("two").get_weights())
        assert_close(other(INPUTS), model(INPUTS))
        new.set_weights([np.zeros((4, 4)), np.zeros(4)])
        assert not np.allclose(ops.convert_to_numpy(other(INPUTS)), ops.convert_to_numpy(model(INPUTS)))
        assert other.get_layer("new") is new

    def test_function_sees_the_old_layer_once(self):
        seen, model = [], residual()

        def wrapped(layer):
            seen.append(layer)
            return dense("two", layer.units)

        replace_layer(model, "two", wrapped)
        assert seen == [model.get_layer("two")]

    def test_a_shared_layer_is_replaced_everywhere(self):
        inputs, shared = keras.Input((4,)), dense("shared")
        model = keras.Model(inputs, shared(shared(inputs)))
        new = layers.Rescaling(3.0)
        assert_close(replace_layer(model, "shared", lambda layer: new)(INPUTS), 9 * INPUTS)

    def test_frozen_layers_stay_frozen(self):
        model = chain()
        model.get_layer("one").trainable = False
        other = replace_layer(model, "three", lambda layer: dense("three", 5))
        assert [layer.trainable for layer in other.layers] == [False, True, True]
        assert other.output_shape == (None, 5)

    def test_is_compiled_as_the_old_one(self):
        model = residual()
        assert not replace_layer(model, "two", lambda layer: dense("two")).compiled
        model.compile(keras.optimizers.SGD(0.25), loss="mse")
        other = replace_layer(model, "two", lambda layer: dense("two"))
        assert other.optimizer is not model.optimizer
        assert float(ops.convert_to_numpy(other.optimizer.learning_rate)) == 0.25
        other.fit(INPUTS, np.ones((3, 2)), verbose=0)
        model.fit(INPUTS, np.ones((3, 2)), verbose=0)

    def test_compiled_with_a_loss_that_keras_does_not_know(self):
        def own(targets, outputs):
            return ops.mean(ops.square(targets - outputs), axis=-1)

        model = residual()
        model.compile("sgd", loss=own)
        with pytest.raises(
            ValueError, match=r"model must be not compiled yet, or with .* registered .*'own'"
        ):
            replace_layer(model, "two", lambda layer: dense("two"))

    @pytest.mark.parametrize("make", [residual, chain])
    def test_saves_and_loads(self, make, tmp_path):
        other = replace_layer(make(), "two", lambda layer: dense("two"))
        other.save(tmp_path / "other.keras")
        assert_close(keras.saving.load_model(tmp_path / "other.keras")(INPUTS), other(INPUTS))

    @pytest.mark.parametrize("name", ["tow", "input"])
    def test_unknown_name(self, name):
        listed = "the name of a layer of the model, such as"
        with pytest.raises(ValueError, match=f"name must be {listed} '.*', got '{name}'"):
            replace_layer(residual(), name, lambda layer: dense("new"))

    @pytest.mark.parametrize("make", [residual, chain])
    def test_a_layer_that_does_not_fit_what_follows(self, make):
        with pytest.raises(
            ValueError, match=r"function must be one whose layer fits in place of 'two', got .*wide"
        ):
            replace_layer(make(), "two", lambda layer: dense("wide", 7))

    def test_a_layer_that_does_not_fit_its_input(self):
        with pytest.raises(ValueError, match="function must be one whose layer fits in place of 'two'"):
            replace_layer(residual(), "two", lambda layer: layers.Conv1D(2, 2))

    @pytest.mark.parametrize("result", [None, ops.tanh, "dense"])
    def test_function_must_return_a_layer(self, result):
        with pytest.raises(ValueError, match="what function returns must be a layer, got"):
            replace_layer(residual(), "two", lambda layer: result)

    def test_an_error_of_the_function_comes_through(self):
        def fails(layer):
            raise KeyError(layer.name)

        with pytest.raises(KeyError, match="two"):
            replace_layer(residual(), "two", fails)

    @pytest.mark.parametrize("model", [keras.Model(), 3])
    def test_other_models(self, model):
        with pytest.raises(ValueError, match="model must be functional or sequential, got"):
            replace_layer(model, "two", lambda layer: layer)
