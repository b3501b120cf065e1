"""Optimizers against the recursions of their articles, written out in NumPy, and against Keras' own."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.optimizers import (
    MIXINS,
    AdaX,
    InnerWeightDecay,
    LayerAdaptation,
    LazyRows,
    Lookahead,
    RatePerCopy,
    derive,
    flush_accumulation,
)

STIFFNESS = np.array([1.0, 10.0])
JIT = [False] if keras.backend.backend() == "torch" else [False, True]
Adam, SGD = keras.optimizers.Adam, keras.optimizers.SGD


def run(
    optimizer, gradient=lambda theta, step: STIFFNESS * theta, start=(1.0, 1.0), steps=20, dtype="float32"
):
    """Take steps down ½θᵀdiag(1, 10)θ, or along another gradient, and return every θ."""
    theta = keras.Variable(np.array(start), dtype=dtype)
    path = [ops.convert_to_numpy(theta).copy()]
    for step in range(steps):
        optimizer.apply([ops.convert_to_tensor(gradient(path[-1], step), dtype=dtype)], [theta])
        path.append(ops.convert_to_numpy(theta).copy())
    return np.array(path)


def adam(theta, state, gradient, rate=0.1, epsilon=1e-7):
    """Return the displacement of Keras' Adam."""
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
    corrected = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return corrected * state["m"] / (np.sqrt(state["v"]) + epsilon)


def reference(change=lambda d, theta: d, *, steps=20, after=lambda theta, t: theta):
    """Run Adam in double precision; `change` sees each displacement, `after` each new θ."""
    theta, state = np.ones(2), {}
    for t in range(1, steps + 1):
        theta = after(theta - change(adam(theta, state, STIFFNESS * theta), theta), t)
    return theta


def layer_adapted(displacement, theta, rate=0.1):
    return displacement * rate * np.linalg.norm(theta) / np.linalg.norm(displacement)


class TestMixins:
    def test_without_effect_they_change_nothing(self):
        plain = run(Adam(0.1))
        neutral = derive(Adam, *MIXINS)(
            0.1, inner_weight_decay=0.0, exclude_from_layer_adaptation=["."], slow_step_size=1.0
        )
        np.testing.assert_allclose(run(neutral), plain, atol=3e-7)  # of rounding
        np.testing.assert_allclose(plain[-1], reference(), rtol=1e-4)

    def test_layer_adaptation(self):
        path = run(derive(Adam, LayerAdaptation)(0.1))
        np.testing.assert_allclose(path[-1], reference(layer_adapted), rtol=1e-4)
        np.testing.assert_allclose(path[-1], (0.121577070764, 0.121576238417), rtol=1e-4)
        moved = np.linalg.norm(np.diff(path, axis=0), axis=1) / np.linalg.norm(path[:-1], axis=1)
        np.testing.assert_allclose(moved, 0.1, rtol=1e-5)

    def test_a_tiny_step_keeps_its_direction(self):
        """The difference of two rounded weights would not: here it is a hundredth of their last digit."""
        optimizer = derive(SGD, LayerAdaptation)(1e-9)
        theta = run(optimizer, gradient=lambda theta, step: np.array([3.0, 4.0]), start=(1.0, 0.0), steps=1)
        np.testing.assert_allclose(theta[1], [1.0, -0.8e-9], rtol=1e-5)

    def test_decay_inside_of_the_ratio_is_the_paper_and_outside_is_not(self):
        inside = run(derive(Adam, InnerWeightDecay, LayerAdaptation)(0.1, inner_weight_decay=0.1))[-1]
        outside = run(derive(Adam, LayerAdaptation, InnerWeightDecay)(0.1, inner_weight_decay=0.1))[-1]

        def decayed(d, theta):
            return d + 0.01 * theta

        np.testing.assert_allclose(
            inside, reference(lambda d, theta: layer_adapted(decayed(d, theta), theta)), rtol=1e-4
        )
        np.testing.assert_allclose(
            outside, reference(lambda d, theta: decayed(layer_adapted(d, theta), theta)), rtol=1e-4
        )
        np.testing.assert_allclose(inside, (0.121577036364, 0.121576272816), rtol=1e-4)
        np.testing.assert_allclose(outside, (0.097230314212, 0.097229617346), rtol=1e-4)

    def test_decay_alone_is_the_decoupled_one(self):
        path = run(derive(SGD, InnerWeightDecay)(0.05, inner_weight_decay=0.1))
        np.testing.assert_allclose(path[-1], (0.3225790586243, 7.800168395970e-07), rtol=1e-4)

    @pytest.mark.parametrize(("base", "settings"), [(SGD, {"momentum": 0.9}), (Adam, {})])
    def test_decay_alone_is_that_of_keras(self, base, settings):
        ours = run(derive(base, InnerWeightDecay)(0.05, inner_weight_decay=2.0, **settings))
        np.testing.assert_allclose(ours, run(base(0.05, weight_decay=2.0, **settings)), rtol=1e-4, atol=1e-6)

    def test_lookahead_of_adam(self):
        slow = np.ones(2)

        def every_fifth(theta, t):
            nonlocal slow
            if t % 5 == 0:
                slow = slow + 0.5 * (theta - slow)
                return slow
            return theta

        path = run(derive(Adam, Lookahead)(0.1))
        np.testing.assert_allclose(path[-1], reference(after=every_fifth), rtol=1e-4)
        np.testing.assert_allclose(path[-1], (0.137013989521, 0.137013186203), rtol=1e-4)

    @pytest.mark.parametrize("share", [0.25, 1.0])
    def test_share_of_the_way(self, share):
        """By hand: of two steps from 1 to 0.8 it keeps the share α."""
        optimizer = derive(SGD, Lookahead)(0.1, slow_period=2, slow_step_size=share)
        path = run(optimizer, lambda theta, step: np.ones(2), steps=3)
        assert path[:, 0] == pytest.approx([1, 0.9, 1 - 0.2 * share, 0.9 - 0.2 * share])

    def test_lookahead_counts_updates_and_not_batches(self):
        optimizer = derive(SGD, Lookahead)(0.1, slow_period=2, gradient_accumulation_steps=2)
        path = run(optimizer, lambda theta, step: np.ones(2), steps=8)[:, 0]
        assert path == pytest.approx([1, 1, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8])

    def test_lookahead_starts_where_the_weights_are(self):
        """From zero, and with its first synchronisation at the first step, it would halve them."""
        np.testing.assert_array_equal(run(derive(SGD, Lookahead)(0.05))[1], run(SGD(0.05))[1])

    def test_slow_weights(self):
        optimizer = derive(SGD, Lookahead)(0.05, slow_period=5)
        theta = keras.Variable([1.0, 1.0])
        optimizer.build([theta])
        np.testing.assert_array_equal(ops.convert_to_numpy(optimizer.slow_weights[0]), [1, 1])
        for _ in range(7):
            optimizer.apply([ops.convert_to_tensor(STIFFNESS, dtype="float32") * theta], [theta])
        slow = ops.convert_to_numpy(optimizer.slow_weights[0]).copy()
        assert not np.array_equal(slow, ops.convert_to_numpy(theta))
        optimizer.sync_slow_weights()
        np.testing.assert_array_equal(ops.convert_to_numpy(theta), slow)
        plain = run(SGD(0.05), steps=5)[-1]
        np.testing.assert_allclose(slow, (1 + plain) / 2, rtol=1e-6)
        with pytest.raises(ValueError, match="optimizer must be built, got '<SGD_Lookahead>'"):
            derive(SGD, Lookahead)(0.05).sync_slow_weights()

    @pytest.mark.skipif(keras.backend.backend() == "jax", reason="float64 is behind a global switch of JAX")
    def test_double_precision_stays(self):
        """Up to the hyper-parameters, which Keras keeps in float32."""
        path = run(derive(Adam, LayerAdaptation)(0.1), dtype="float64")
        assert path.dtype == "float64"
        np.testing.assert_allclose(path[-1], (0.121577070764, 0.121576238417), rtol=1e-5)

    @pytest.mark.parametrize(
        "base", [SGD, keras.optimizers.Adadelta, keras.optimizers.Ftrl, keras.optimizers.Lion]
    )
    def test_bases_that_move_a_weight_in_other_ways(self, base):
        """By adding (SGD with momentum, Adadelta), by assigning (Ftrl), by subtracting."""
        settings = {"momentum": 0.9} if base is SGD else {}
        optimizer = derive(base, LayerAdaptation)(0.01, **settings)
        path = run(optimizer, steps=5)
        moved = np.linalg.norm(np.diff(path, axis=0), axis=1) / np.linalg.norm(path[:-1], axis=1)
        np.testing.assert_allclose(moved, 0.01, rtol=1e-4)
        neutral = derive(base, InnerWeightDecay)(0.01, inner_weight_decay=0.0, **settings)
        np.testing.assert_allclose(run(neutral, steps=5), run(base(0.01, **settings), steps=5), rtol=1e-5)

    def test_between_steps_an_assignment_is_one(self):
        optimizer = derive(SGD, LayerAdaptation)(0.1)
        theta = keras.Variable([3.0, 4.0])
        optimizer.apply([ops.ones(2)], [theta])
        optimizer.assign(theta, ops.zeros(2))
        np.testing.assert_array_equal(ops.convert_to_numpy(theta), [0, 0])

    def test_excluded_weights(self):
        optimizer = derive(SGD, InnerWeightDecay, LayerAdaptation)(
            0.1, exclude_from_inner_weight_decay=["variable"], exclude_from_layer_adaptation=["variable"]
        )
        np.testing.assert_allclose(run(optimizer), run(SGD(0.1)), atol=1e-7)

    def test_zero_weights_are_moved_as_proposed(self):
        still = run(derive(SGD, LayerAdaptation)(0.1), gradient=lambda theta, step: np.zeros(2), steps=1)
        np.testing.assert_array_equal(still[1], [1, 1])
        moved = run(derive(SGD, LayerAdaptation)(0.1), lambda theta, step: np.ones(2), start=(0, 0), steps=1)
        np.testing.assert_allclose(moved[1], [-0.1, -0.1])


class TestRatePerCopy:
    RATES = (0.03, 0.0, 0.2)

    @pytest.mark.parametrize(
        ("base", "mixins", "settings"),
        [
            (Adam, (), {"beta_2": 0.99}),
            (SGD, (), {"momentum": 0.9}),
            (Adam, (InnerWeightDecay,), {"inner_weight_decay": 0.5}),
            (Adam, (LayerAdaptation,), {}),
        ],
    )
    def test_each_copy_goes_its_own_way(self, base, mixins, settings):
        """Six copies, over which three rates repeat, as six runs of one."""
        start = np.random.default_rng(0).normal(size=(6, 2, 2))

        def slope(theta, step):
            return STIFFNESS * theta + 0.1 * step

        optimizer = derive(base, *mixins, RatePerCopy)(0.5, copy_rates=self.RATES, **settings)
        together = run(optimizer, slope, start)
        for copy, alone in enumerate(start):
            rate = 0.5 * self.RATES[copy % 3]
            optimizer = (derive(base, *mixins) if mixins else base)(rate, **settings)
            np.testing.assert_allclose(together[:, copy], run(optimizer, slope, alone), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(together[-1, 1], together[0, 1])  # a rate of zero

    @pytest.mark.parametrize("jit_compile", JIT)
    def test_rates_may_change_between_updates(self, jit_compile):
        kernel = keras.layers.EinsumDense("bf,cfg->bcg", (2, 1), kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), kernel])
        optimizer = derive(SGD, RatePerCopy)(1.0, copy_rates=[0.5, 0.25])
        model.compile(optimizer, lambda y, given: -ops.sum(given, axis=(1, 2)), jit_compile=jit_compile)
        for rates in ((0.5, 0.25), (0.0, 2.0)):
            optimizer.copy_rates.assign(rates)
            model.train_on_batch(np.ones((1, 1)), np.ones((1, 2, 1)))
        np.testing.assert_allclose(model.get_weights()[0].ravel(), [0.5, 2.25])
        assert optimizer.get_config()["copy_rates"] == [0.0, 2.0]

    @pytest.mark.parametrize("shape", [(), (2,), (4, 3)])
    def test_weights_of_another_number_of_copies(self, shape):
        optimizer = derive(Adam, RatePerCopy)(0.1, copy_rates=self.RATES)
        with pytest.raises(ValueError, match="shape of theta must be a multiple of 3 along its first axis"):
            optimizer.build([keras.Variable(np.zeros(3)), keras.Variable(np.zeros(shape), name="theta")])

    @pytest.mark.skipif(keras.backend.backend() == "jax", reason="float64 is behind a global switch of JAX")
    def test_double_precision_stays(self):
        path = run(derive(SGD, RatePerCopy)(1.0, copy_rates=[0.5, 0.25]), steps=1, dtype="float64")
        np.testing.assert_array_equal(path[1], [0.5, -1.5])


ROWS = ((0.0, 0.1), (0.2, 0.3), (0.4, 0.5))


def sampled_rows(theta, step):
    gradient = np.zeros((3, 2))
    gradient[[0, 0, 1, 2, 2, 2][step]] = 1, -0.5
    return gradient


class TestLazyRows:
    def run(self, **settings):
        optimizer = derive(Adam, LazyRows)(0.01, epsilon=1e-7, lazy_rows=["variable"], **settings)
        return run(optimizer, sampled_rows, ROWS, 6)

    def test_rows_that_were_not_looked_up_stay(self):
        path = self.run()
        for step, row in enumerate([0, 0, 1, 2, 2, 2]):
            changed = (path[step] != path[step + 1]).any(axis=1)
            assert changed.tolist() == [other == row for other in range(3)]
        np.testing.assert_allclose(path[-1][0], [-0.02, 0.12], rtol=1e-4)
        np.testing.assert_allclose(path[-1][1], [0.193611875065, 0.306388113876], rtol=1e-4)

    def test_the_row_looked_up_last_is_that_of_the_base(self):
        plain = run(Adam(0.01), sampled_rows, ROWS, 6)
        np.testing.assert_array_equal(self.run()[-1][2], plain[-1][2])
        assert not np.array_equal(self.run()[-1][0], plain[-1][0])

    @pytest.mark.parametrize(("freeze", "kept"), [(False, 0.9), (True, 1.0)])
    def test_moments_of_rows_between_two_visits(self, freeze, kept):
        """Row 0 is looked up in steps 1 and 3: what is left of its moments after the step between?"""

        def gradient(theta, step):
            return np.eye(2)[[0, 1, 0][step]][:, None]

        optimizer = derive(Adam, LazyRows)(0.01, lazy_rows=["variable"], freeze_moments=freeze)
        path = run(optimizer, gradient, [[1.0], [1.0]], 3)
        first = 0.9 * kept * 0.1 + 0.1
        second = 0.999 * (1.0 if freeze else 0.999) * 0.001 + 0.001
        expected = 0.01 * math.sqrt(1 - 0.999**3) / (1 - 0.9**3) * first / math.sqrt(second)
        assert path[2][0, 0] - path[3][0, 0] == pytest.approx(expected, rel=1e-4)
        assert path[2][1, 0] == path[3][1, 0]

    @pytest.mark.parametrize(
        ("base", "settings"),
        [
            (Adam, {"amsgrad": True}),
            (keras.optimizers.RMSprop, {"centered": True}),
            (keras.optimizers.Adamax, {}),
        ],
    )
    def test_every_moment_is_frozen(self, base, settings):
        """However a base writes its moments: by adding, or as a whole."""
        optimizer = derive(base, LazyRows)(0.01, lazy_rows=["variable"], freeze_moments=True, **settings)
        weights = keras.Variable(np.ones((3, 2), "float32"))
        optimizer.apply([ops.ones((3, 2))], [weights])
        before = [ops.convert_to_numpy(v).copy() for v in optimizer.variables]
        optimizer.apply([ops.convert_to_tensor([[2.0, 1.0], [0.0, 0.0], [0.0, 0.0]])], [weights])
        after = [ops.convert_to_numpy(v) for v in optimizer.variables]
        moments = [(one, other) for one, other in zip(before, after, strict=True) if one.shape == (3, 2)]
        assert len(moments) > 1
        assert all((one[0] != other[0]).any() for one, other in moments)
        assert all((one[1:] == other[1:]).all() for one, other in moments)

    def test_moments_of_another_shape_are_left_to_the_base(self):
        """Adafactor keeps a mean a row and a mean a column."""
        settings = {"lazy_rows": ["variable"], "freeze_moments": True}
        optimizer = derive(keras.optimizers.Adafactor, LazyRows)(0.01, **settings)
        path = run(
            optimizer, lambda theta, step: np.eye(130)[0][:, None] * np.ones(130), np.ones((130, 130)), 1
        )
        assert ((path[0] != path[1]).any(axis=1) == np.eye(130, dtype=bool)[0]).all()

    def test_only_where_asked(self):
        optimizer = derive(Adam, LazyRows)(0.01, lazy_rows=["embedding"])
        np.testing.assert_array_equal(
            run(optimizer, sampled_rows, ROWS, 6), run(Adam(0.01), sampled_rows, ROWS, 6)
        )

    @pytest.mark.parametrize("jit_compile", JIT)
    def test_an_embedding_in_training(self, jit_compile):
        embedding = keras.layers.Embedding(6, 3)
        model = keras.Sequential([embedding, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)])
        optimizer = derive(Adam, LazyRows)(0.1, lazy_rows=["embedding"])
        model.compile(optimizer, loss="mse", jit_compile=jit_compile)
        model.train_on_batch(np.array([[0, 1], [1, 2]]), np.array([1.0, -1.0]))
        before = ops.convert_to_numpy(embedding.embeddings).copy()
        model.train_on_batch(np.array([[4, 4], [4, 4]]), np.array([1.0, -1.0]))
        changed = (ops.convert_to_numpy(embedding.embeddings) != before).any(axis=1)
        assert changed.tolist() == [False, False, False, False, True, False]

    def test_a_row_without_a_gradient_in_the_sum(self):
        """Looked up twice, with slopes that cancel: on TensorFlow these are two slices."""
        embedding = keras.layers.Embedding(3, 2)
        model = keras.Sequential([embedding])
        optimizer = derive(SGD, LazyRows)(0.1, momentum=0.9, lazy_rows=["embedding"])
        signs = ops.convert_to_tensor([[[1.0], [-1.0], [1.0]]])
        model.compile(optimizer, loss=lambda y, prediction: ops.sum(y * prediction))
        model.train_on_batch(np.array([[0, 1, 2]]), np.ones((1, 3, 1)))
        before = ops.convert_to_numpy(embedding.embeddings).copy()
        model.train_on_batch(np.array([[1, 1, 2]]), ops.convert_to_numpy(signs))
        changed = (ops.convert_to_numpy(embedding.embeddings) != before).any(axis=1)
        assert changed.tolist() == [False, False, True]


@pytest.mark.parametrize("make", [AdaX, lambda: derive(Adam, LazyRows)()], ids=["AdaX", "derived"])
def test_a_word_that_is_read_twice(make):
    """Its slopes are added before they are squared. On TensorFlow, Keras' own optimizers square slices."""
    model = keras.Sequential([keras.layers.Embedding(4, 2)])
    model.compile(make(), loss=lambda y, prediction: ops.sum(prediction, axis=-1), jit_compile=False)
    model.train_on_batch(np.array([[1, 1, 2]]), np.zeros((1, 3, 2)))  # a slope of a third for each reading
    second = {"AdaX": "_second_moments"}.get(type(model.optimizer).__name__, "_velocities")
    moments = ops.convert_to_numpy(getattr(model.optimizer, second)[0])[:, 0]
    assert moments / moments[2] == pytest.approx([0, 4, 1, 0])


def trained(optimizer, jit_compile, policy="float32", batches=8):
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)  # the model's own: with "mixed_float16" Keras scales the loss
    hidden = keras.layers.Dense(8, activation="tanh")
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(1, dtype="float32")])
    model.compile(optimizer, loss="mse", jit_compile=jit_compile)
    keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(batches * 4, 4)).astype("float32")
    history = model.fit(inputs, inputs[:, :1], batch_size=4, epochs=3, verbose=0, shuffle=False)
    return model, history.history["loss"]


def all_mixins(**settings):
    return derive(Adam, *MIXINS)(0.05, lazy_rows=["embedding"], **settings)


@pytest.mark.parametrize("jit_compile", JIT)
@pytest.mark.parametrize("steps", [None, 2])
def test_lookahead_in_training(steps, jit_compile):
    """A slope of 1: two steps to 0.8, and from 0.7 half way back to 1; half way to 0 would be a lost start.

    The optimizer is built in the first call, on TensorFlow while it is compiled.
    """
    kernel = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), kernel])
    optimizer = derive(SGD, Lookahead)(0.1, slow_period=3, gradient_accumulation_steps=steps)
    model.compile(optimizer, loss=lambda y, prediction: prediction, jit_compile=jit_compile)
    path = []
    for _ in range(4):
        for _ in range(steps or 1):
            model.train_on_batch(np.ones((2, 1)), np.ones((2, 1)))
        path.append(model.get_weights()[0][0, 0])
    assert path == pytest.approx([0.9, 0.8, 0.85, 0.75])
    assert ops.convert_to_numpy(optimizer.slow_weights[0]) == pytest.approx(0.85)


@pytest.mark.parametrize("jit_compile", JIT)
@pytest.mark.parametrize("make", [AdaX, all_mixins], ids=["AdaX", "all mixins"])
class TestInTraining:
    @pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
    def test_falls(self, make, jit_compile, policy):
        model, history = trained(make(learning_rate=0.05) if make is AdaX else make(), jit_compile, policy)
        assert history[-1] < history[0]
        scales = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scales == (policy == "mixed_float16")

    def test_accumulated_gradients_are_those_of_the_large_batch(self, make, jit_compile):
        weights = []
        for steps, size in ((None, 8), (2, 4)):
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
            model.compile(make(gradient_accumulation_steps=steps), loss="mse", jit_compile=jit_compile)
            inputs = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
            model.fit(inputs, inputs[:, :3], batch_size=size, epochs=1, verbose=0, shuffle=False)
            weights.append(model.get_weights())
        for one, other in zip(*weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)

    def test_saved_and_loaded_it_goes_on_as_before(self, make, jit_compile, tmp_path):
        model, _ = trained(make(), jit_compile)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert type(loaded.optimizer) is type(model.optimizer)
        assert loaded.optimizer.get_config() == model.optimizer.get_config()
        inputs = np.ones((4, 4), "float32")
        for _ in range(6):  # past a synchronisation
            losses = [m.train_on_batch(inputs, inputs[:, :1]) for m in (model, loaded)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class TestDerive:
    def test_the_same_class_each_time(self):
        assert derive(Adam, Lookahead) is derive(Adam, Lookahead)
        assert derive(Adam, LazyRows, Lookahead) is not derive(Adam, Lookahead, LazyRows)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((Adam,), "mixins must be some of InnerWeightDecay"),
            ((Adam, AdaX), "mixins must be some of InnerWeightDecay"),
            ((Adam, "Lookahead"), "mixins must be some of InnerWeightDecay"),
            ((Adam, LazyRows, LazyRows), "mixins must be different from each other"),
            (("adam", Lookahead), "base must be a Keras optimizer class"),
            ((derive(Adam, Lookahead), LazyRows), "base must be not derived itself"),
            ((keras.optimizers.LossScaleOptimizer, Lookahead), "base must be the optimizer inside"),
        ],
    )
    def test_what_does_not_fit(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            derive(*arguments)

    @pytest.mark.skipif(keras.backend.backend() != "torch", reason="elsewhere it is the public class")
    def test_the_class_that_keras_makes_on_pytorch(self):
        """It moves all weights at once, past the mixins."""
        with pytest.raises(ValueError, match=r"base must be the public class, keras\.optimizers\.Adam, got"):
            derive(type(Adam()), LayerAdaptation)

    @pytest.mark.parametrize(
        ("mixin", "settings"),
        [
            (InnerWeightDecay, {"inner_weight_decay": -1.0}),
            (InnerWeightDecay, {"weight_decay": 0.1}),
            (InnerWeightDecay, {"exclude_from_inner_weight_decay": "bias"}),
            (LazyRows, {"lazy_rows": "embedding"}),
            (RatePerCopy, {"copy_rates": []}),
            (RatePerCopy, {"copy_rates": 0.1}),
            (RatePerCopy, {"copy_rates": [0.1, -0.1]}),
            (RatePerCopy, {"weight_decay": 0.1}),
            (Lookahead, {"slow_period": 0}),
            (Lookahead, {"slow_step_size": 1.5}),
        ],
    )
    def test_arguments_out_of_range(self, mixin, settings):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
            derive(Adam, mixin)(0.1, **settings)


class TestAdaX:
    def test_recursion_of_the_article(self):
        theta, m, v = np.ones(2), 0.0, 0.0
        for t in range(1, 21):
            gradient = STIFFNESS * theta
            m = 0.9 * m + 0.1 * gradient
            v = 1.0001 * v + 0.0001 * gradient**2
            theta = theta - 0.1 * m / np.sqrt(v / (1.0001**t - 1) + 1e-3)
        np.testing.assert_allclose(theta, (-0.03053085, -0.03113738), rtol=1e-6)
        np.testing.assert_allclose(run(AdaX(0.1, epsilon=1e-3))[-1], theta, rtol=1e-4)

    @pytest.mark.parametrize(
        ("steps", "share"), [(1, 1.0), (2, 1 / 2.0001), (10_000, 1e-4 / (1.0001**10_000 - 1))]
    )
    def test_share_of_the_newest_square(self, steps, share):
        """Read off the second moment, where a single gradient of 1 arrives after zeros."""
        optimizer = AdaX()
        theta = keras.Variable([1.0])
        optimizer.build([theta])
        optimizer._iterations.assign(steps - 1)
        optimizer.apply([ops.ones(1)])
        found = float(ops.convert_to_numpy(optimizer._second_moments[0])[0])
        assert found == pytest.approx(share, rel=1e-5)

    def test_it_never_overflows(self):
        optimizer = AdaX()
        theta = keras.Variable([1.0])
        optimizer.build([theta])
        optimizer._iterations.assign(10**7)
        optimizer.apply([ops.ones(1)])
        assert np.isfinite(ops.convert_to_numpy(theta)).all()
        assert ops.convert_to_numpy(optimizer._second_moments[0]) == 0  # frozen

    @pytest.mark.parametrize("settings", [{"beta_1": 1.0}, {"beta_2": 0.0}, {"epsilon": -1.0}])
    def test_arguments_out_of_range(self, settings):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
            AdaX(**settings)


class TestFlushAccumulation:
    def test_the_rest_of_an_epoch(self):
        gradients = [np.array([1.0, 2.0]), np.array([3.0, -2.0])]
        theta = keras.Variable([1.0, 1.0])
        optimizer = SGD(0.1, gradient_accumulation_steps=4)
        for gradient in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient, dtype="float32")], [theta])
        assert flush_accumulation(optimizer) == 2
        np.testing.assert_allclose(ops.convert_to_numpy(theta), [0.8, 1.0], rtol=1e-6)
        assert int(ops.convert_to_numpy(optimizer.iterations)) == 1
        assert flush_accumulation(optimizer) == 0
        for _ in range(4):  # the next update starts from nothing
            optimizer.apply([ops.ones(2)], [theta])
        np.testing.assert_allclose(ops.convert_to_numpy(theta), [0.7, 0.9], rtol=1e-6)

    def test_scaled_losses(self):
        theta = keras.Variable([1.0])
        optimizer = SGD(0.1, gradient_accumulation_steps=4, loss_scale_factor=8.0)
        optimizer.apply([8 * ops.ones(1)], [theta])
        flush_accumulation(optimizer)
        assert ops.convert_to_numpy(theta) == pytest.approx(0.9)

    def test_in_an_optimizer_that_scales_the_loss(self):
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((1,)), dense])
        inner = SGD(0.1, gradient_accumulation_steps=4)
        model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0), loss="mse")
        model.fit(np.ones((2, 1)), np.array([[0.5], [-0.5]]), batch_size=1, verbose=0)  # gradients 1 and 3
        assert flush_accumulation(model.optimizer) == 2
        assert ops.convert_to_numpy(dense.kernel) == pytest.approx(0.8)
        assert int(ops.convert_to_numpy(inner.iterations)) == 1

    @pytest.mark.parametrize("jit_compile", JIT)
    def test_at_the_end_of_each_epoch_of_a_fit(self, jit_compile):
        class Flush(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                flushed.append(flush_accumulation(self.model.optimizer))

        flushed = []
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(SGD(0.1, gradient_accumulation_steps=4), loss="mse", jit_compile=jit_compile)
        inputs = np.ones((10, 2), "float32")
        model.fit(inputs, inputs[:, :1], batch_size=2, epochs=2, verbose=0, callbacks=[Flush()])
        assert flushed == [1, 1]
        assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 4

    def test_nothing_to_flush(self):
        optimizer = SGD(0.1)
        run(optimizer, steps=1)
        assert flush_accumulation(optimizer) == 0

    def test_not_built(self):
        with pytest.raises(ValueError, match="optimizer must be built"):
            flush_accumulation(SGD(0.1))
