import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from kexue_lib.autodiff import compiled, gradient, hessian_vector_product, values_of

# Without compilation, PyTorch is itself, and JAX is slow and no other program.
JIT_COMPILE = {"tensorflow": [False, True], "jax": [True], "torch": [False]}[keras.backend.backend()]


def to_list(tensor):
    return ops.convert_to_numpy(tensor).tolist()


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((2,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)]
    return keras.Sequential(layers)


@pytest.fixture
def batch():
    return np.random.default_rng(0).normal(size=(16, 2)).astype("float32")


def test_import_loads_no_framework():
    code = """
import sys, kexue_lib.autodiff
print(sorted({"keras", "tensorflow", "jax", "torch"} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


class TestGradient:
    def test_entries_of_the_result_are_summed(self):
        result = gradient(lambda x: ops.stack([x[0], x[0] * x[1]]), np.array([2.0, 3.0], "float32"))
        assert to_list(result) == [4.0, 2.0]

    def test_a_list_of_inputs_becomes_the_arguments(self):
        one, two = ops.convert_to_tensor(3.0), ops.convert_to_tensor([5.0, 7.0])
        first, second = gradient(lambda a, b: a**2 * b, [one, two])
        assert to_list(first) == 72.0
        assert to_list(second) == [9.0, 9.0]

    def test_a_list_of_one_input_gives_a_list(self):
        (result,) = gradient(lambda x: x**2, [ops.convert_to_tensor(3.0)])
        assert to_list(result) == 6.0

    def test_of_a_variable_given_as_input(self):
        assert to_list(gradient(lambda x: x**2, keras.Variable(3.0))) == 6.0

    def test_is_zero_where_nothing_depends(self):
        one, two = ops.convert_to_tensor(3.0), ops.convert_to_tensor([5.0, 7.0])
        assert [to_list(g) for g in gradient(lambda a, b: a, [one, two])] == [1.0, [0.0, 0.0]]
        assert to_list(gradient(lambda a: ops.convert_to_tensor(1.0), one)) == 0.0

    def test_of_weights(self, network, batch):
        kernel, bias = network.layers[-1].trainable_variables
        hidden = to_list(ops.sum(network.layers[0](batch), axis=0))
        for_kernel, for_bias = gradient(lambda: network(batch), weights=[kernel, bias])
        np.testing.assert_allclose(to_list(for_kernel), np.reshape(hidden, (8, 1)), rtol=1e-5)
        assert to_list(for_bias) == [16.0]

    def test_of_weights_that_are_not_trainable(self):
        weight = keras.Variable(3.0, trainable=False)
        assert to_list(gradient(lambda: weight.value**2, weights=[weight])[0]) == 6.0

    @pytest.mark.parametrize("of_weights", [False, True])
    def test_leaves_all_variables_alone(self, batch, of_weights):
        normalise = keras.layers.BatchNormalization()
        normalise.build(batch.shape)
        if of_weights:
            gradient(lambda: normalise(batch, training=True), weights=normalise.trainable_variables)
        else:
            gradient(lambda x: normalise(x, training=True), batch)
        assert to_list(normalise.moving_mean) == [0.0, 0.0]
        assert to_list(normalise.gamma) == [1.0, 1.0]

    def test_second_derivative(self):
        second = gradient(lambda x: gradient(lambda y: y**3, x), ops.convert_to_tensor(2.0))
        assert to_list(second) == 12.0

    def test_mixed_derivative_of_weight_and_input(self, network, batch):
        """A linear layer's slope is its kernel, so 16 squared slopes have the gradient 2 * 16 * kernel."""
        linear = keras.layers.Dense(1)
        linear.build((None, 2))

        def penalty():
            return ops.sum(gradient(linear, batch) ** 2)

        for_kernel, for_bias = gradient(penalty, weights=linear.trainable_variables)
        np.testing.assert_allclose(to_list(for_kernel), to_list(32 * linear.kernel), rtol=1e-5)
        assert to_list(for_bias) == [0.0]

    def test_weights_within_weights(self):
        """An outer derivative sees through an inner one of the same weight: (w^3)'' = 6 w."""
        weight = keras.Variable(2.0)

        def inner():
            return gradient(lambda: weight.value**3, weights=[weight])[0]

        assert to_list(gradient(inner, weights=[weight])[0]) == 12.0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "inputs or weights must be given"),
            ({"inputs": 1.0, "weights": []}, "inputs or weights must be given"),
            ({"weights": []}, "weights must be at least one tensor"),
            ({"inputs": np.array([1, 2])}, "inputs must be floating point, got"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            gradient(lambda x: x, **arguments)


class TestHessianVectorProduct:
    MATRIX = np.array([[2.0, 1.0, 0.0], [1.0, -3.0, 4.0], [0.0, 4.0, 5.0]], "float32")
    VECTOR = np.array([1.0, -2.0, 3.0], "float32")

    def quadratic(self, x):
        return ops.sum(x * ops.matmul(ops.convert_to_tensor(self.MATRIX), x)) / 2

    def test_of_a_quadratic_form(self):
        result = hessian_vector_product(self.quadratic, np.ones(3, "float32"), vectors=self.VECTOR)
        np.testing.assert_allclose(to_list(result), self.MATRIX @ self.VECTOR, rtol=1e-6)

    def test_off_diagonal_blocks(self):
        """f = a^2 b, so H = [[2b, 2a], [2a, 0]]."""
        a, b = ops.convert_to_tensor(3.0), ops.convert_to_tensor(5.0)
        result = hessian_vector_product(lambda a, b: a**2 * b, [a, b], vectors=[1.0, 10.0])
        assert [to_list(entry) for entry in result] == [70.0, 6.0]

    def test_of_weights(self):
        weight = keras.Variable(np.ones(3, "float32"))
        (result,) = hessian_vector_product(
            lambda: self.quadratic(weight.value), weights=[weight], vectors=[self.VECTOR]
        )
        np.testing.assert_allclose(to_list(result), self.MATRIX @ self.VECTOR, rtol=1e-6)

    def test_of_a_linear_function_is_zero(self):
        result = hessian_vector_product(lambda x: 3 * x, np.ones(3, "float32"), vectors=self.VECTOR)
        assert to_list(result) == [0.0, 0.0, 0.0]

    def test_agrees_with_a_difference_of_gradients(self, network, batch):
        def energy(x):
            return network(x) ** 2

        vectors, step = np.ones_like(batch), 1e-2
        difference = gradient(energy, batch + step * vectors) - gradient(energy, batch - step * vectors)
        product = hessian_vector_product(energy, batch, vectors=vectors)
        np.testing.assert_allclose(to_list(product), to_list(difference / (2 * step)), atol=2e-4)

    def test_vectors_of_another_shape(self):
        with pytest.raises(
            ValueError, match=r"vectors must be shaped like .* \[\(3,\)\], got 'shapes \[\(2,\)\]"
        ):
            hessian_vector_product(self.quadratic, np.ones(3, "float32"), vectors=np.ones(2))


class SlopeFitter(keras.Model):
    """Ask for a slope of length one everywhere: nothing but a gradient penalty, as in WGAN-GP."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, x):
        return self.network(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        slope = gradient(self.network, x)
        return ops.mean((ops.norm(slope, axis=-1) - 1) ** 2)


class GradientStep(keras.layers.Layer):
    """One step down an energy, inside `call`, as Langevin dynamics and equivariant layers take."""

    def call(self, x):
        return x - gradient(lambda v: v**4, x)


class TestInsideModels:
    # The penalty does not see the last bias, and Keras says so.
    @pytest.mark.filterwarnings("ignore:Gradients do not exist")
    @pytest.mark.parametrize("jit_compile", JIT_COMPILE)
    def test_gradient_penalty_trains(self, network, batch, jit_compile):
        model = SlopeFitter(network)
        model.compile(keras.optimizers.Adam(0.01), jit_compile=jit_compile)
        losses = model.fit(batch, epochs=20, batch_size=8, verbose=0).history["loss"]
        assert losses[-1] < 0.3 * losses[0]
        evaluated = model.evaluate(batch, verbose=0)
        slopes = np.linalg.norm(to_list(gradient(network, batch)), axis=-1)
        assert evaluated == pytest.approx(np.mean((slopes - 1) ** 2), rel=1e-4)

    @pytest.mark.parametrize("jit_compile", JIT_COMPILE)
    def test_gradient_in_the_forward_pass(self, jit_compile):
        inputs = keras.Input((2,))
        model = keras.Model(inputs, GradientStep()(inputs))
        assert model.output_shape == (None, 2)
        model.compile(jit_compile=jit_compile)
        result = model.predict(np.array([[1.0, 0.5]], "float32"), verbose=0)
        np.testing.assert_allclose(result, [[-3.0, 0.0]], atol=1e-6)


class TestValuesOf:
    def test_restores_after_an_error(self):
        weight = keras.Variable(1.0)

        def assign_and_fail():
            with values_of([weight], [2.0]):
                weight.assign(5.0)
                raise KeyError

        with pytest.raises(KeyError):
            assign_and_fail()
        assert to_list(weight) == 1.0

    def test_an_inner_scope_keeps_the_values_of_the_outer_one(self):
        one, two = keras.Variable(1.0), keras.Variable(1.0)
        with values_of([one, two], [10.0, 20.0]), values_of([two], [200.0]):
            assert (to_list(one), to_list(two)) == (10.0, 200.0)


class TestCompiled:
    def test_traces_once_for_each_set_of_shapes(self):
        runs = []

        def cube(x):
            runs.append(tuple(x.shape))
            return x**3

        fast = compiled(cube)
        for values in ([1.0, 2.0], [3.0, 4.0], [5.0]):
            result = fast(ops.convert_to_tensor(values))
            np.testing.assert_allclose(to_list(result), np.array(values) ** 3)
        traced = [(2,), (1,)]
        assert runs == ([(2,), (2,), (1,)] if keras.backend.backend() == "torch" else traced)
