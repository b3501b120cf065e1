import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.landscape import _lanczos, along_gradient, largest_hessian_eigenvalue

# Four equally likely points with mean (3, -2) and covariance diag(4, 1/4): the toy of chapter 6992, and the
# largest eigenvalues of its Hessian in the chapter's table, which come from the moments alone.
RAW = np.array([[3 + a, -2 + b] for a in (-2.0, 2.0) for b in (-0.5, 0.5)])
CENTRED = RAW - RAW.mean(axis=0)
SCALED = RAW / RAW.std(axis=0)
STANDARDISED = CENTRED / RAW.std(axis=0)
TARGETS = np.array([[1.0], [-1.0], [2.0], [0.5]])


def half_squared_error(targets, outputs):
    return ops.mean((outputs - targets) ** 2) / 2


def linear_regression(weights=(1.0, 1.0, 1.0)):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss=half_squared_error)
    model.set_weights([np.array([[weights[0]], [weights[1]]]), np.array([weights[2]])])
    return model


def hessian_and_gradient(points, weights):
    """Closed form: H = E(x x^T), gradient = H w - E(x y), with x extended by 1 for the bias."""
    extended = np.column_stack([points, np.ones(4)])
    hessian = extended.T @ extended / 4
    return hessian, hessian @ weights - extended.T @ TARGETS[:, 0] / 4


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.1)),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("tanh"),
            # On PyTorch, Keras' dropout draws from torch's global generator: every evaluation differs.
            keras.layers.Dropout(0.0 if keras.backend.backend() == "torch" else 0.5),
            keras.layers.Dense(2),
        ]
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture
def batch():
    random = np.random.default_rng(0)
    return random.normal(loc=2.0, size=(8, 3)).astype("float32"), random.integers(0, 2, size=8)


def all_values(model):
    return [ops.convert_to_numpy(variable) for variable in model.variables]


class TestLargestHessianEigenvalue:
    @pytest.mark.parametrize(
        ("points", "expected"),
        [(RAW, 16.85965824605745), (CENTRED, 4.0), (STANDARDISED, 1.0), (SCALED, 20.2004962656933)],
    )
    def test_linear_regression(self, points, expected):
        result = largest_hessian_eigenvalue(linear_regression(), points, TARGETS, tolerance=1e-5)
        assert result.value == pytest.approx(expected, rel=1e-5)
        assert result.iterations <= 3

    def test_agrees_with_the_whole_hessian(self, network, batch):
        """The loss written out in NumPy and differenced twice: an independent route."""
        inputs, targets = batch
        result = largest_hessian_eigenvalue(network, inputs, targets, training=False, tolerance=1e-4)
        start = network.get_weights()
        trainable = [id(v) for v in network.trainable_variables]

        def loss(offset, *entries):
            weights = [w.astype("float64") for w in start]
            for variable, index, sign in entries:
                weights[variable][index] += sign * offset
            kernel, bias, gamma, beta, mean, variance, last_kernel, last_bias = weights
            hidden = (inputs @ kernel + bias - mean) / np.sqrt(variance + 1e-3) * gamma + beta
            logits = np.tanh(hidden) @ last_kernel + last_bias
            chosen = np.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
            cross_entropy = np.log(np.exp(logits).sum(axis=1)) - chosen
            return cross_entropy.mean() + 0.1 * np.sum(kernel**2)

        positions = [
            (number, index)
            for number, variable in enumerate(network.weights)
            if id(variable) in trainable
            for index in np.ndindex(tuple(variable.shape))
        ]
        step = 1e-4
        hessian = np.array(
            [
                [
                    sum(i * j * loss(step, (*p, i), (*q, j)) for i in (-1, 1) for j in (-1, 1))
                    / (4 * step**2)
                    for q in positions
                ]
                for p in positions
            ]
        )
        assert result.value == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)

    def test_leaves_the_model_alone(self, network, batch):
        before = all_values(network)
        largest_hessian_eigenvalue(network, *batch)
        for old, new in zip(before, all_values(network), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_twice_the_same_result(self, network, batch):
        assert largest_hessian_eigenvalue(network, *batch) == largest_hessian_eigenvalue(network, *batch)

    def test_sees_new_weights_new_loss_and_new_statistics(self, network, batch):
        """The compiled function is kept between calls: nothing of the first call may be frozen in it."""
        arguments = {"training": False, "tolerance": 1e-4}
        values = [largest_hessian_eigenvalue(network, *batch, **arguments).value]
        network.layers[-1].kernel.assign(2 * network.layers[-1].kernel)
        values.append(largest_hessian_eigenvalue(network, *batch, **arguments).value)
        network.layers[1].moving_variance.assign(9 * network.layers[1].moving_variance)
        values.append(largest_hessian_eigenvalue(network, *batch, **arguments).value)
        network.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), loss_weights=[7.0])
        values.append(largest_hessian_eigenvalue(network, *batch, **arguments).value)
        assert np.all(np.abs(np.diff(values)) > 1e-3 * np.abs(values[:-1]))

    def test_sees_which_layers_are_trained(self):
        """Without compiling again: the two layers have kernels of one shape, so nothing else would tell."""
        model = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2, use_bias=False) for _ in "ab")])
        model.compile(loss="mse")
        first, second = model.layers
        first.kernel.assign([[1.0, 2.0], [0.0, 1.0]])
        second.kernel.assign([[3.0, 0.0], [1.0, 1.0]])
        inputs = np.array([[1.0, 0.5], [-1.0, 2.0]], "float32")
        values = []
        for fixed, free in ((first, second), (second, first), (first, second)):
            fixed.trainable, free.trainable = False, True
            found = largest_hessian_eigenvalue(model, inputs, np.zeros((2, 2), "float32"), tolerance=1e-4)
            values.append(found.value)
        assert abs(values[1] / values[0] - 1) > 0.1
        assert values[2] == pytest.approx(values[0], rel=1e-3)

    def test_too_few_iterations(self, network, batch):
        with pytest.raises(
            ArithmeticError, match=r"within tolerance 1e-06 after 2 iterations.*raise iterations"
        ):
            largest_hessian_eigenvalue(network, *batch, iterations=2, tolerance=1e-6)

    def test_infinite_loss(self):
        model = linear_regression(weights=(np.nan, 1.0, 1.0))
        model.compile(loss=lambda targets, outputs: half_squared_error(targets, outputs) ** 2)
        with pytest.raises(ArithmeticError, match="not finite"):
            largest_hessian_eigenvalue(model, RAW, TARGETS)

    @pytest.mark.parametrize(("argument", "value"), [("iterations", 0), ("tolerance", 0.0)])
    def test_bad_arguments(self, argument, value):
        with pytest.raises(ValueError, match=argument):
            largest_hessian_eigenvalue(linear_regression(), RAW, TARGETS, **{argument: value})


class TestLanczos:
    def test_most_positive_and_not_largest_in_magnitude(self):
        random = np.random.default_rng(1)
        rotation = np.linalg.qr(random.normal(size=(40, 40)))[0]
        matrix = rotation @ np.diag(np.linspace(-10, 3, 40)) @ rotation.T
        result = _lanczos(lambda v: matrix @ v, random.normal(size=40), iterations=40, tolerance=1e-8)
        assert result.value == pytest.approx(3.0, abs=1e-6)

    def test_the_residual_bounds_the_error(self):
        random = np.random.default_rng(2)
        values = np.sort(random.normal(size=200))
        result = _lanczos(lambda v: values * v, random.normal(size=200), iterations=100, tolerance=0.01)
        assert 0 < np.min(np.abs(values - result.value)) <= result.residual <= 0.01 * result.value
        assert result.iterations < 50

    def test_stops_when_the_span_is_everything(self):
        """Rounding keeps the residual above this tolerance; there is nothing left to look for, though."""
        random = np.random.default_rng(3)
        matrix = random.normal(size=(4, 4))
        matrix = matrix + matrix.T
        result = _lanczos(lambda v: matrix @ v, random.normal(size=4), iterations=50, tolerance=1e-300)
        assert result.iterations == 4
        assert result.value == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-12)

    def test_zero_matrix(self):
        assert _lanczos(np.zeros_like, np.ones(5), iterations=5, tolerance=1e-3).value == 0.0


class TestAlongGradient:
    RATES = (0.01, 0.1, 0.2)

    def test_linear_regression(self):
        weights = np.array([1.0, 1.0, 1.0])
        hessian, slope = hessian_and_gradient(RAW, weights)
        result = along_gradient(linear_regression(weights), RAW, TARGETS, self.RATES)

        start_loss = np.mean((RAW @ weights[:2] + weights[2] - TARGETS[:, 0]) ** 2) / 2
        curvature = slope @ hessian @ slope
        losses = [start_loss - rate * slope @ slope + rate**2 * curvature / 2 for rate in self.RATES]
        speed = np.linalg.norm(hessian @ slope)
        assert result.start_loss == pytest.approx(start_loss, rel=1e-5)
        assert result.start_gradient_norm == pytest.approx(np.linalg.norm(slope), rel=1e-5)
        np.testing.assert_allclose(result.losses, losses, rtol=1e-5)
        np.testing.assert_allclose(result.gradient_distances, np.multiply(self.RATES, speed), rtol=1e-5)
        assert result.smoothness == pytest.approx(speed / np.linalg.norm(slope), rel=1e-5)
        assert result.learning_rates.tolist() == list(self.RATES)

    def test_smoothness_is_the_largest_over_the_steps(self):
        """f = w^4 at w = 1: the gradient 4 falls to 4 (1 - 4 rate)^3, so small steps see the most."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(loss=lambda targets, outputs: ops.mean(outputs**4))
        model.set_weights([np.ones((1, 1))])
        result = along_gradient(model, np.ones((1, 1)), np.ones((1, 1)), [0.125, 0.25])
        assert result.gradient_distances.tolist() == [3.5, 4.0]
        assert result.smoothness == pytest.approx(7.0)

    def test_leaves_the_model_alone(self, network, batch):
        before = all_values(network)
        along_gradient(network, *batch, self.RATES)
        for old, new in zip(before, all_values(network), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_leaves_the_model_alone_after_an_error(self, network, batch):
        inputs, targets = batch
        before = all_values(network)
        with pytest.raises(Exception, match=r".+"):
            along_gradient(network, inputs, targets[:3], self.RATES)
        for old, new in zip(before, all_values(network), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_the_loss_is_that_of_the_trainer(self, network, batch):
        """Training: the same statistics and the same dropout mask as the model's next training call."""
        inputs, targets = batch
        evaluated = network.evaluate(inputs, targets, verbose=0)
        assert along_gradient(network, inputs, targets, [0.1], training=False).start_loss == pytest.approx(
            evaluated, rel=1e-5
        )
        in_training = along_gradient(network, inputs, targets, [0.1]).start_loss
        assert in_training == pytest.approx(network.train_on_batch(inputs, targets), rel=1e-5)
        assert abs(in_training - evaluated) > 1e-3

    @pytest.mark.parametrize("rates", [[0.1, 0.0], [-1.0], [np.nan]])
    def test_bad_learning_rates(self, rates):
        with pytest.raises(ValueError, match="learning_rates must be a finite number above 0, got"):
            along_gradient(linear_regression(), RAW, TARGETS, rates)

    def test_no_gradient(self):
        model = linear_regression(weights=(0.0, 0.0, 0.0))
        with pytest.raises(ValueError, match="gradient is not zero"):
            along_gradient(model, RAW, np.zeros((4, 1)), [0.1])

    def test_unfit_models(self):
        model = keras.Sequential([keras.layers.Dense(1)])
        with pytest.raises(ValueError, match="model must be built"):
            along_gradient(model, RAW, TARGETS, [0.1])
        model.build((None, 2))
        with pytest.raises(ValueError, match="model must be compiled"):
            along_gradient(model, RAW, TARGETS, [0.1])
