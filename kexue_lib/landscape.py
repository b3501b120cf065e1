"""The loss of a Keras model around its present weights: along the gradient, and its sharpest curvature.

Article 6992 argues that batch normalisation makes the loss smoother. These are the quantities that say so:
Santurkar et al., "How does batch normalization help optimization?", arXiv 1805.11604, measure the first three
along the gradient; the largest eigenvalue of the Hessian is the L of the descent lemma at this point, and
gradient descent on a quadratic loss is stable up to the learning rate 2 / L.

Nothing here writes to the model: weights, moving averages and random seeds are the same afterwards, also
after an error. On PyTorch, where Keras' dropout ignores its seed, measure networks without dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh_tridiagonal

from kexue_lib.autodiff import Tensor, compiled, gradient, hessian_vector_product, values_of
from kexue_lib.validation import require, require_integer, require_real

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class AlongGradient:
    r"""What `along_gradient` measured; arrays have one entry for each learning rate, shape (steps,).

    Attributes:
        learning_rates: the sizes $\eta$ of the steps.
        start_loss: $f(\theta)$.
        start_gradient_norm: $\|\nabla f(\theta)\|_2$.
        losses: $f(\theta - \eta \nabla f(\theta))$.
        gradient_distances: $\|\nabla f(\theta - \eta \nabla f(\theta)) - \nabla f(\theta)\|_2$.
        smoothness: the largest gradient distance for each unit of the distance moved,
            $\eta \|\nabla f(\theta)\|_2$: the effective β-smoothness, a lower bound of the Lipschitz
            constant L of the gradient.
    """

    learning_rates: np.ndarray
    start_loss: float
    start_gradient_norm: float
    losses: np.ndarray
    gradient_distances: np.ndarray
    smoothness: float


@dataclass(frozen=True)
class HessianEigenvalue:
    r"""What `largest_hessian_eigenvalue` found.

    Attributes:
        value: the eigenvalue, in units of the loss for each squared unit of the weights.
        residual: $\|Hv - \lambda v\|_2$ for the unit vector v found; up to rounding, the Hessian has an
            eigenvalue within this distance of `value`.
        iterations: the number of Hessian-vector products it took.
    """

    value: float
    residual: float
    iterations: int


def along_gradient(
    model: keras.Model,
    inputs: Tensor,
    targets: Tensor,
    learning_rates: ArrayLike,
    *,
    training: bool = True,
) -> AlongGradient:
    """Measure how loss and gradient change over steps of several sizes along the gradient.

    Args:
        model: a built and compiled model; its compiled loss and regularisers make up the loss.
        inputs: one batch, as the model takes it, batch axis first.
        targets: its targets, as the compiled loss takes them.
        learning_rates: sizes of the steps, positive, shape (steps,).
        training: whether layers behave as in training. True lets batch normalisation use the statistics of
            this batch at every point: the loss that the optimizer sees.

    Raises:
        ValueError: if the model is not built and compiled or has nothing to train, if a learning rate is not
            positive and finite, or if the gradient is zero and so has no direction.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    >>> model.compile(loss="mse")
    >>> inputs, targets = np.array([[-1.0], [1.0]]), np.array([[0.0], [0.0]])
    >>> result = along_gradient(model, inputs, targets, [0.25, 0.5])
    >>> result.losses.tolist(), result.gradient_distances.tolist(), result.smoothness
    ([0.25, 0.0], [1.0, 2.0], 2.0)

    Source: arXiv 1805.11604, section 3.1 and figure 4.
    """
    rates = np.array([require_real("learning_rates", rate, above=0) for rate in np.ravel(learning_rates)])
    loss = _LossAtWeights(model, inputs, targets, training)
    start = loss.present_weights()
    start_loss, start_gradient = loss.value_and_gradient(start)
    norm = float(np.linalg.norm(start_gradient))
    require(norm > 0, "model", "a zero gradient", "at weights where the gradient is not zero")

    points = [start - rate * start_gradient for rate in rates]
    losses, gradients = zip(*[loss.value_and_gradient(point) for point in points], strict=True)
    distances = np.linalg.norm(np.array(gradients) - start_gradient, axis=1)
    smoothness = float(np.max(distances / (rates * norm)))
    return AlongGradient(rates, start_loss, norm, np.array(losses), distances, smoothness)


def largest_hessian_eigenvalue(
    model: keras.Model,
    inputs: Tensor,
    targets: Tensor,
    *,
    training: bool = True,
    iterations: int = 100,
    tolerance: float = 1e-3,
) -> HessianEigenvalue:
    r"""Return the largest eigenvalue of the Hessian of the loss with respect to the trainable weights.

    Largest means most positive: the sharpest upward curvature, which limits the learning rate. That is why
    this is Lanczos' method and not power iteration, which finds the eigenvalue of largest magnitude and would
    return the most negative one where that is longer. Lanczos also needs fewer Hessian-vector products: it
    takes the best vector of the span of $v, Hv, H^2v, \dots$, where power iteration takes the last.

    Memory: as many vectors of the size of the weights, in float64, as there are iterations.

    Args:
        model: a built and compiled model; its compiled loss and regularisers make up the loss.
        inputs: one batch, as the model takes it, batch axis first.
        targets: its targets, as the compiled loss takes them.
        training: whether layers behave as in training, as for `along_gradient`.
        iterations: give up after this many Hessian-vector products.
        tolerance: stop when the residual is below this fraction of the eigenvalue. Hessian-vector products in
            float32 are good for about 1e-5.

    Raises:
        ValueError: if the model is not built and compiled or has nothing to train, or if `iterations` or
            `tolerance` is not positive.
        ArithmeticError: if the residual is still too large after all iterations, or not finite.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> inputs, targets = np.array([[2.0], [-2.0]]), np.array([[1.0], [1.0]])
    >>> round(largest_hessian_eigenvalue(model, inputs, targets).value, 4)  # E(2wx + b - 1)^2: 2 E(x^2)
    8.0

    Source: Lanczos, "An iteration method for the solution of the eigenvalue problem", 1950; for networks:
    Ghorbani, Krishnan and Xiao, arXiv 1901.10159.
    """
    iterations = require_integer("iterations", iterations, minimum=1)
    tolerance = require_real("tolerance", tolerance, above=0)
    loss = _LossAtWeights(model, inputs, targets, training)
    weights = loss.present_weights()
    # Any vector will do that is not orthogonal to the eigenvector sought.
    first = np.random.default_rng(0).normal(size=weights.size)
    return _lanczos(lambda vector: loss.hessian_product(weights, vector), first, iterations, tolerance)


def _lanczos(
    product: Callable[[np.ndarray], np.ndarray], first: np.ndarray, iterations: int, tolerance: float
) -> HessianEigenvalue:
    """Find the largest eigenvalue of the symmetric matrix behind `product`.

    In the orthonormal basis that the products span, the matrix is tridiagonal; its largest eigenvalue is the
    best estimate within the span, and the weight of the last basis vector says what the span still misses.
    """
    basis = [first / np.linalg.norm(first)]
    diagonal, off_diagonal = [], []
    for iteration in range(1, iterations + 1):
        image = product(basis[-1])
        if not np.all(np.isfinite(image)):
            raise ArithmeticError("the Hessian of the loss is not finite at these weights")
        diagonal.append(image @ basis[-1])
        values, vectors = eigh_tridiagonal(diagonal, off_diagonal)
        for _ in range(2):  # once is not enough in floating point
            image = image - np.array(basis).T @ (np.array(basis) @ image)
        rest = float(np.linalg.norm(image))
        residual = rest * abs(float(vectors[-1, -1]))
        if residual <= tolerance * abs(values[-1]) or iteration == first.size:
            return HessianEigenvalue(float(values[-1]), residual, iteration)
        off_diagonal.append(rest)
        basis.append(image / rest)
    raise ArithmeticError(
        f"no eigenvalue within tolerance {tolerance:g} after {iterations} iterations: the best is "
        f"{values[-1]:g} with residual {residual:g}; raise iterations or tolerance"
    )


class _LossAtWeights:
    """The loss of a model on one batch, as a function of its trainable weights laid end to end."""

    def __init__(self, model: keras.Model, inputs: Tensor, targets: Tensor, training: bool):
        import keras

        is_built = model.built and len(model.trainable_variables) > 0
        require(is_built, "model", model.name, "built, with trainable weights")
        require(model.compiled, "model", model.name, "compiled with a loss")
        self._weights = model.trainable_variables
        batch = keras.tree.map_structure(keras.ops.convert_to_tensor, (inputs, targets))
        state = [keras.ops.convert_to_tensor(v.value) for v in model.non_trainable_variables]
        self._fixed = (state, *batch)
        # Part of the key are the loss, for the model may be compiled again, and which variables are trained.
        variables = tuple(map(id, (*model.trainable_variables, *model.non_trainable_variables)))
        self._functions = _compiled_functions(model, model._compile_loss, training, variables)

    def present_weights(self) -> np.ndarray:
        """Return the weights, shape (parameters,), float64."""
        from keras import ops

        return np.concatenate([np.ravel(ops.convert_to_numpy(w)) for w in self._weights]).astype("float64")

    def value_and_gradient(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss and its gradient, shape (parameters,)."""
        value, slope = self._call("value_and_gradient", weights)
        return float(value), slope

    def hessian_product(self, weights: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Return the Hessian times `vector`, shape (parameters,)."""
        return self._call("hessian_product", weights, vector)[0]

    def _call(self, name: str, *vectors: np.ndarray) -> list[np.ndarray]:
        from keras import ops

        vectors = [ops.convert_to_tensor(vector, dtype=self._weights[0].dtype) for vector in vectors]
        results = self._functions[name](*vectors, *self._fixed)
        return [ops.convert_to_numpy(result).astype("float64") for result in results]


@lru_cache(maxsize=4)
def _compiled_functions(
    model: keras.Model, compiled_loss: object, training: bool, variables: tuple[int, ...]
) -> dict[str, Callable[..., tuple[Tensor, ...]]]:
    """Compile once for a model and not for each of the many points of its training."""

    def value(weights: Tensor, state: list[Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        with values_of(variables, [*_split(weights, model.trainable_variables), *state]):
            outputs = model(inputs, training=training)
            return model.compute_loss(x=inputs, y=targets, y_pred=outputs, training=training)

    def value_and_gradient(weights: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
        return value(weights, *batch), gradient(lambda w: value(w, *batch), weights)

    def hessian_product(weights: Tensor, vector: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
        return (hessian_vector_product(lambda w: value(w, *batch), weights, vectors=vector),)

    functions = (value_and_gradient, hessian_product)
    return {function.__name__: compiled(function) for function in functions}


def _split(vector: Tensor, variables: list[keras.Variable]) -> list[Tensor]:
    """Cut a vector into tensors of the shapes and dtypes of `variables`."""
    from keras import ops

    ends = np.cumsum([math.prod(variable.shape) for variable in variables]).tolist()
    pieces = [vector[start:end] for start, end in pairwise([0, *ends])]
    return [ops.cast(ops.reshape(p, v.shape), v.dtype) for p, v in zip(pieces, variables, strict=True)]
