"""The loss of a Keras model around its present weights: along the gradient, and its sharpest curvature.

Article 6992 argues that batch normalisation makes the loss smoother. These are the quantities that say so:
Santurkar et al., "How does batch normalization help optimization?", arXiv 1805.11604, measure the first three
along the gradient; the largest eigenvalue of the Hessian is the L of the descent lemma at this point, and
gradient descent on a quadratic loss is stable up to the learning rate 2 / L.

Nothing here writes to the model: weights, moving averages and random seeds are the same afterwards, also after
an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from kexue_lib.autodiff import Tensor, gradient, hessian_vector_product, values_of
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
    loss, start = _loss_of_weights(model, inputs, targets, training)
    start_loss, start_gradient = _loss_and_gradient(loss, start)
    norm = float(np.linalg.norm(start_gradient))
    require(norm > 0, "model", "zero", "at weights where the gradient is not zero")

    points = [start - rate * start_gradient for rate in rates]
    losses, gradients = zip(*[_loss_and_gradient(loss, point) for point in points], strict=True)
    distances = np.linalg.norm(np.array(gradients) - start_gradient, axis=1)
    smoothness = float(np.max(distances / (rates * norm)))
    return AlongGradient(rates, start_loss, norm, np.array(losses), distances, smoothness)
