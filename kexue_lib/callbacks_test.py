import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.callbacks import BestMetric, HyperparameterSchedule

BACKEND = keras.backend.backend()
JIT_COMPILE = [False] if BACKEND == "torch" else [False, True]
jit_compile_settings = pytest.mark.parametrize("jit_compile", JIT_COMPILE)

INPUTS = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
TARGETS = INPUTS @ np.array([[1.0], [-2.0]], "float32")


def network(jit_compile="auto", **compile_arguments):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit_compile, **compile_arguments)
    return model


def fit(model, callbacks, epochs=1, **arguments):
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(INPUTS, TARGETS, epochs=epochs, callbacks=callbacks, **arguments)


class Script:
    """An evaluation that returns given values and remembers the weights it saw."""

    def __init__(self, *values):
        self.values = list(values)
        self.weights = []

    def __call__(self, model):
        self.weights.append([np.array(weight) for weight in model.get_weights()])
        return self.values[len(self.weights) - 1]


def has_weights(model, weights):
    return all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))


class TestBestMetric:
    @pytest.mark.parametrize(
        ("mode", "values", "best_epoch"),
        [
            ("max", [1, 3, 2], 1),
            ("min", [3, 1, 2], 1),
            ("max", [-3, -2, -1], 2),
            ("min", [1, 2, 3], 0),
            ("max", [1, 2, 2], 1),
            ("min", [2, 1, 1], 1),
            ("max", [np.nan, 1, np.nan], 1),
            ("min", [np.nan, 2, 1], 2),
            ("min", [2, np.nan, 3], 0),
            ("max", [-np.inf, np.inf, 0], 1),
        ],
    )
    def test_restores_the_best_weights(self, mode, values, best_epoch):
        model, evaluate = network(), Script(*values)
        callback = BestMetric(evaluate, mode=mode)
        history = fit(model, [callback], epochs=3).history
        assert (callback.best, callback.best_epoch) == (values[best_epoch], best_epoch)
        np.testing.assert_array_equal(callback.history, values)
        np.testing.assert_array_equal(history["metric"], values)
        assert has_weights(model, evaluate.weights[best_epoch])
        others = [weights for epoch, weights in enumerate(evaluate.weights) if epoch != best_epoch]
        assert not any(has_weights(model, weights) for weights in others)

    def test_weights_that_are_not_trained_are_restored(self):
        model, evaluate = network(), Script(1, 0)
        fit(model, [BestMetric(evaluate)], epochs=2)
        moving_mean = ops.convert_to_numpy(model.layers[0].moving_mean)
        np.testing.assert_array_equal(moving_mean, evaluate.weights[0][2])
        assert not np.array_equal(moving_mean, evaluate.weights[1][2])

    def test_without_a_best_value_the_weights_stay(self):
        model, evaluate = network(), Script(np.nan, np.nan)
        callback = BestMetric(evaluate)
        fit(model, [callback], epochs=2)
        assert (callback.best, callback.best_epoch) == (None, None)
        assert has_weights(model, evaluate.weights[1])

    def test_training_that_is_stopped_early(self):
        """By a callback after it, which finds the value in the logs, under the name it was given."""
        model, evaluate = network(), Script(1, 3, 2, 1, 0)
        callback = BestMetric(evaluate, name="bleu")
        stopping = keras.callbacks.EarlyStopping(monitor="bleu", mode="max", patience=2)
        history = fit(model, [callback, stopping], epochs=5).history
        assert history["bleu"] == [1, 3, 2, 1]
        assert has_weights(model, evaluate.weights[1])

    def test_another_fit_starts_anew(self):
        """Also with another model, whose weights must not become those of the first."""
        callback = BestMetric(Script(9, 8, 1, 2))
        fit(network(), [callback], epochs=2)
        model = network()
        fit(model, [callback], epochs=2)
        assert (callback.best, callback.best_epoch, callback.history) == (2, 1, [1, 2])
        assert has_weights(model, callback.evaluate.weights[3])

    def test_counts_epochs_as_keras_does(self):
        callback = BestMetric(Script(1, 2))
        fit(network(), [callback], epochs=7, initial_epoch=5)
        assert callback.best_epoch == 6

    @jit_compile_settings
    def test_evaluation_may_use_the_model(self, jit_compile):
        """Predicting in the middle of training neither disturbs it nor sees old weights."""

        def worst_error(model):
            errors = np.abs(model.predict(INPUTS, verbose=0) - TARGETS)
            assert np.allclose(model.evaluate(INPUTS, TARGETS, verbose=0), np.mean(errors**2), rtol=1e-4)
            return errors.max()

        model, undisturbed = network(jit_compile), network(jit_compile)
        callback = BestMetric(worst_error, mode="min")
        losses = fit(model, [callback], epochs=3).history["loss"]
        np.testing.assert_allclose(losses, fit(undisturbed, [], epochs=3).history["loss"], rtol=1e-5)
        assert worst_error(model) == pytest.approx(callback.best, rel=1e-5)
        assert len(set(callback.history)) == 3

    @pytest.mark.parametrize("number", [np.float32(2), ops.convert_to_tensor(2.0), True])
    def test_anything_that_is_a_number(self, number):
        callback = BestMetric(lambda model: number)
        fit(network(), [callback])
        assert callback.history == [float(number is True) or 2.0]
        assert type(callback.best) is float

    def test_a_tensor_that_depends_on_weights(self):
        """PyTorch warns where such a tensor becomes a Python number without a detour."""
        model = network()
        callback = BestMetric(lambda model: ops.mean(model(INPUTS)))
        fit(model, [callback])
        assert callback.best == pytest.approx(np.mean(model.predict(INPUTS, verbose=0)), rel=1e-5)

    @pytest.mark.parametrize("value", [None, "good", [1, 2]])
    def test_evaluate_must_return_a_number(self, value):
        with pytest.raises(ValueError, match="evaluate must be a function that returns a number, got"):
            fit(network(), [BestMetric(lambda model: value)])

    @pytest.mark.parametrize("mode", ["auto", "maximum", None])
    def test_bad_mode(self, mode):
        with pytest.raises(ValueError, match='mode must be either "max" or "min", got'):
            BestMetric(lambda model: 0, mode=mode)


class Recorder(keras.callbacks.Callback):
    """What a variable is when a batch has been trained, as a callback after the schedule sees it."""

    def __init__(self, variable):
        super().__init__()
        self.variable = variable
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        assert self.model is not None  # on JAX, this gives the variable its value
        self.values.append(round(float(ops.convert_to_numpy(self.variable)), 6))


class TestHyperparameterSchedule:
    @jit_compile_settings
    def test_sets_the_learning_rate_before_each_batch(self, jit_compile):
        """With two batches an epoch; steps count on from epoch to epoch and from fit to fit."""
        model = network(jit_compile)
        rate = model.optimizer.learning_rate
        schedule, recorder = HyperparameterSchedule(rate, lambda step: 0.01 * (step + 1)), Recorder(rate)
        fit(model, [schedule, recorder], epochs=2)
        fit(model, [schedule, recorder])
        assert recorder.values == [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
        assert schedule.step == 6

    @jit_compile_settings
    def test_the_optimizer_uses_it(self, jit_compile):
        """A slope of 1 on each weight: it moves by the sum of the rates, 0.5 + 0.25 + 0.125 + 0.0625."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile(
            keras.optimizers.SGD(9.0), loss=lambda y, prediction: prediction, jit_compile=jit_compile
        )
        schedule = HyperparameterSchedule(model.optimizer.learning_rate, lambda step: 0.5 ** (step + 1))
        model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=1, callbacks=[schedule], verbose=0)
        assert [float(weight.sum()) for weight in model.get_weights()] == [-0.9375, -0.9375]

    @jit_compile_settings
    def test_a_compiled_loss_sees_a_variable_and_not_a_number(self, jit_compile):
        """A loss that is the value itself. This is why `variable` must be a keras.Variable."""
        model, number = network(), {"value": 0.1}
        model.value = keras.Variable(0.1, trainable=False)

        def loss_of(read):
            return lambda y, prediction: read() + 0 * ops.mean(prediction)

        seen = HyperparameterSchedule(model.value, lambda step: 10.0 + step)
        model.compile("sgd", loss=loss_of(lambda: model.value.value), jit_compile=jit_compile)
        assert fit(model, [seen], epochs=2).history["loss"] == pytest.approx([10.5, 12.5])

        class SetsNumber(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                number["value"] = 20.0

        model.compile("sgd", loss=loss_of(lambda: number["value"]), jit_compile=jit_compile)
        fit(model, [])
        is_compiled = BACKEND == "tensorflow" or jit_compile
        assert fit(model, [SetsNumber()]).history["loss"] == pytest.approx([0.1 if is_compiled else 20.0])

    def test_a_variable_that_the_model_does_not_hold(self):
        """JAX compiles its value in, like a number; elsewhere it is read from where it is."""
        model, scale = network(), keras.Variable(1.0)
        model.compile("sgd", loss=lambda y, prediction: scale.value + 0 * ops.mean(prediction))
        schedule = HyperparameterSchedule(scale, lambda step: 10.0 + step)
        if BACKEND != "jax":
            assert fit(model, [schedule]).history["loss"] == pytest.approx([10.5])
            return
        with pytest.raises(ValueError, match="variable must be held by the model on JAX: assign it to"):
            fit(model, [schedule])

    def test_training_goes_on_as_without_it(self):
        """On JAX the weights are given back between the steps, and must not lose one."""
        model, undisturbed = network(), network()
        fit(model, [HyperparameterSchedule(model.optimizer.learning_rate, lambda step: 0.1)], epochs=3)
        fit(undisturbed, [], epochs=3)
        for found, expected in zip(model.get_weights(), undisturbed.get_weights(), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.skipif(BACKEND == "torch", reason="Keras has it for TensorFlow and JAX only")
    def test_several_batches_an_execution(self):
        """Batches 0 and 1, and 2 alone, for 3 make an epoch: the function is asked at 0, 2, 3 and 5."""
        model, asked = network(steps_per_execution=2), []

        def function(step):
            asked.append(step)
            return 0.1

        schedule = HyperparameterSchedule(model.optimizer.learning_rate, function)
        model.fit(INPUTS[:6], TARGETS[:6], batch_size=2, epochs=2, callbacks=[schedule], verbose=0)
        assert asked == [0, 2, 3, 5]
        assert schedule.step == 6

    @pytest.mark.parametrize(
        "variable",
        [
            0.1,
            np.float32(0.1),
            keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)).learning_rate,
        ],
        ids=["float", "numpy", "schedule"],
    )
    def test_what_is_no_variable(self, variable):
        with pytest.raises(
            ValueError, match=r"variable must be a keras\.Variable .* baked into the compiled graph"
        ):
            HyperparameterSchedule(variable, lambda step: 0.1)
