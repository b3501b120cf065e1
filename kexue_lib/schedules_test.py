import json
import math

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.schedules import PiecewiseLinear

JIT = [False] if keras.backend.backend() == "torch" else [False, True]


def value(tensor):
    return float(ops.convert_to_numpy(tensor))


def descend(optimizer, slopes, steps):
    """Take steps down ½θᵀdiag(slopes)θ from all ones, and return every θ."""
    theta = keras.Variable(np.ones(len(slopes), "float32"))
    path = [ops.convert_to_numpy(theta).copy()]
    for _ in range(steps):
        optimizer.apply([ops.convert_to_tensor(slopes * path[-1])], [theta])
        path.append(ops.convert_to_numpy(theta).copy())
    return path


class TestPiecewiseLinear:
    def test_values(self):
        rate = PiecewiseLinear({1000: 1.0, 2000: 0.1})
        steps = (0, 1, 500, 1000, 1500, 2000, 5000)
        expected = (0, 0.001, 0.5, 1, 0.55, 0.1, 0.1)
        np.testing.assert_allclose([value(rate(step)) for step in steps], expected, rtol=1e-5, atol=1e-9)

    def test_a_knot_at_zero(self):
        rate = PiecewiseLinear({0: 1.0, 10: 0.0})
        assert [value(rate(step)) for step in (0, 5, 10, 11)] == [1, 0.5, 0, 0]

    def test_a_single_knot(self):
        """At 0 it is a constant, elsewhere a warm-up."""
        assert [value(PiecewiseLinear({0: 0.5})(step)) for step in (0, 7)] == [0.5, 0.5]
        assert [value(PiecewiseLinear({4: 1.0})(step)) for step in (0, 1, 4, 7)] == [0, 0.25, 1, 1]

    def test_is_exact_at_its_knots(self):
        """Summing the rises 1, -0.7 and -0.3 would end at -3e-8: uphill."""
        knots = {10: 1.0, 20: 0.3, 30: 0.0}
        found = [value(PiecewiseLinear(knots)(step)) for step in (*knots, 40)]
        assert found == [1, np.float32(0.3), 0, 0]

    def test_takes_a_step_of_any_kind(self):
        rate = PiecewiseLinear([(2, 1.0)])
        for step in (
            1,
            np.int64(1),
            ops.convert_to_tensor(1),
            keras.Variable(1, dtype="int32", trainable=False),
        ):
            assert value(rate(step)) == 0.5
        assert keras.backend.standardize_dtype(rate(1).dtype) == "float32"

    def test_trajectory_of_the_article(self):
        path = descend(keras.optimizers.Adam(PiecewiseLinear({5: 0.1, 15: 0.01})), np.float32([1, 10]), 20)
        np.testing.assert_array_equal(path[1], path[0])  # the first step has rate 0
        np.testing.assert_allclose(path[-1], (0.222621186682, 0.222620477264), rtol=1e-4)

    def test_is_shown_batches_and_not_updates(self):
        """Two gradients an update: the updates come at steps 1 and 3, with rates 0.1 and 0.3."""
        optimizer = keras.optimizers.SGD(PiecewiseLinear({10: 1.0}), gradient_accumulation_steps=2)
        theta = keras.Variable([0.0])
        for _ in range(4):
            optimizer.apply([ops.ones(1)], [theta])
        assert ops.convert_to_numpy(theta)[0] == pytest.approx(-0.4)

    @pytest.mark.parametrize("jit_compile", JIT)
    def test_in_a_model_that_is_trained_saved_and_loaded(self, jit_compile, tmp_path):
        """A slope of 1 on each weight: it moves by the sum of the rates 0, 0.1, 0.2, and 0.3 once loaded."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        optimizer = keras.optimizers.SGD(PiecewiseLinear({10: 1.0, 20: 0.0}))
        model.compile(optimizer, loss="mean_absolute_error", jit_compile=jit_compile)
        inputs, targets = np.ones((1, 1)), np.full((1, 1), -9.0)
        for moved in (0, 0.1, 0.3):
            model.train_on_batch(inputs, targets)
            assert model.get_weights()[0][0, 0] == pytest.approx(-moved)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        loaded.train_on_batch(inputs, targets)
        assert loaded.get_weights()[0][0, 0] == pytest.approx(-0.6)

    def test_config_survives_json(self):
        rate = PiecewiseLinear({10: 1.0, 20: 0.5})
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(rate)))
        assert config["registered_name"] == "kexue>PiecewiseLinear"
        again = keras.saving.deserialize_keras_object(config)
        assert again.get_config() == rate.get_config()
        assert value(again(15)) == 0.75

    @pytest.mark.parametrize(
        ("knots", "message"),
        [
            ({}, "knots must be at least one step with its rate"),
            ({-1: 1.0}, "a step of knots must be a whole number of at least 0, got -1"),
            ({1.5: 1.0}, "a step of knots must be a whole number of at least 0, got 1.5"),
            ({2: 1.0, 1: 2.0}, "knots must be in the order of their steps, each step once"),
            ([(1, 1.0), (1, 2.0)], "knots must be in the order of their steps, each step once"),
            ({1: -1.0}, "the rate at step 1 must be a finite number of at least 0, got -1"),
            ({1: math.nan}, "the rate at step 1 must be a finite number of at least 0, got nan"),
        ],
    )
    def test_bad_knots(self, knots, message):
        with pytest.raises(ValueError, match=message):
            PiecewiseLinear(knots)
