"""The exponential and the logarithm of a matrix by their series, and the traces that replace determinants.

    det exp(A) = exp(Tr A)    and so    ln det(I + J) = Tr ln(I + J) = sum over n of (-1)^(n-1) Tr(J^n) / n

The exponential series converges for every matrix. The logarithm's converges when the spectral radius (not
just the norm) is below 1, and ends by itself when the matrix is nilpotent. Nothing here scales or squares:
the functions show the series; for production use `scipy.linalg.expm` and `logm`.

Sources: https://kexue.fm/archives/6377 (2019); M. F. Hutchinson, "A stochastic estimator of the trace of the
influence matrix for Laplacian smoothing splines", Communications in Statistics 19 (1990).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kexue_lib.validation import require, require_integer

__all__ = ["Estimate", "expm_series", "hutchinson_trace", "logdet_series", "logm_series"]

MatrixVectorProduct = Callable[[np.ndarray], np.ndarray]


class Estimate(NamedTuple):
    """A value and its standard error, which is 0 where nothing was drawn at random."""

    value: float | complex | np.ndarray
    standard_error: float


def expm_series(matrix: np.ndarray, terms: int) -> np.ndarray:
    """The first `terms` terms of exp(A) = I + A + A^2/2! + ..., that is up to A^(terms-1).

    Args:
        matrix: A, real or complex, shape (..., k, k).
        terms: how many terms, at least 1; about 3 |A| + 20 give full accuracy.

    Returns:
        shape (..., k, k), float64 or complex128.

    Raises:
        ValueError: if `matrix` is not square or not finite, or `terms` is below 1.

    >>> expm_series([[0, 100], [0, 0]], terms=2)
    array([[  1., 100.],
           [  0.,   1.]])
    """
    matrix = _require_square("matrix", matrix)
    term = np.broadcast_to(np.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    total = term.copy()
    for n in range(1, require_integer("terms", terms, minimum=1)):
        term = term @ matrix / n
        total += term
    return total


def logm_series(matrix: np.ndarray, terms: int) -> np.ndarray:
    """The first `terms` terms of ln(I + A) = A - A^2/2 + A^3/3 - ...

    The sum approaches the principal logarithm if all eigenvalues of A lie inside the unit circle; the norm
    may be larger than 1.

    Args:
        matrix: A, not I + A, real or complex, shape (..., k, k).
        terms: how many terms, at least 1.

    Returns:
        shape (..., k, k), float64 or complex128.

    Raises:
        ValueError: if `matrix` is not square or not finite, or `terms` is below 1.

    >>> logm_series([[0, 100], [0, 0]], terms=50)
    array([[  0., 100.],
           [  0.,   0.]])
    """
    matrix = _require_square("matrix", matrix)
    power = matrix
    total = matrix.copy()
    for n in range(2, require_integer("terms", terms, minimum=1) + 1):
        power = -power @ matrix
        total += power / n
    return total


def hutchinson_trace(matvec: MatrixVectorProduct, dimension: int, probes: int, seed: int) -> Estimate:
    """Estimate Tr A from products A z with random signs z: the mean of z.T A z is the trace.

    One probe has the variance 2 (||S||_F^2 - sum of s_ii^2) with S = (A + A.T) / 2, for real A; it is zero
    for a diagonal A.

    Args:
        matvec: maps a vector, shape (dimension,), to A times it, shape (dimension,).
        dimension: k, the number of rows of A.
        probes: how many vectors z, at least 2.
        seed: of NumPy's generator; the same seed gives the same estimate.

    Returns:
        the mean over the probes and its standard error.

    Raises:
        ValueError: if a number is too small or `matvec` returns another shape or what is not finite.

    >>> hutchinson_trace(lambda z: np.array([1, 2, 3]) * z, dimension=3, probes=4, seed=0)
    Estimate(value=6.0, standard_error=0.0)
    """
    dimension = require_integer("dimension", dimension, minimum=1)
    probes = require_integer("probes", probes, minimum=2)
    generator = np.random.default_rng(require_integer("seed", seed, minimum=0))
    samples = []
    for _ in range(probes):
        signs = generator.choice([-1.0, 1.0], size=dimension)
        samples.append(signs @ _apply(matvec, signs))
    return Estimate(np.mean(samples).item(), float(np.std(samples, ddof=1) / np.sqrt(probes)))


def logdet_series(
    operator: np.ndarray | MatrixVectorProduct,
    terms: int,
    *,
    dimension: int | None = None,
    probes: int | None = None,
    seed: int = 0,
) -> Estimate:
    """ln det(I + J) as the trace of the first `terms` terms of the series of ln(I + J).

    Without `probes` the traces are exact; with them the trace of the truncated series is estimated by
    `hutchinson_trace`, so the standard error does not know about the truncation.

    Args:
        operator: J as a matrix, shape (k, k), or (..., k, k) with exact traces; or the product z -> J z.
        terms: how many terms, at least 1; the spectral radius of J must be below 1 (or J nilpotent).
        dimension: k; needed for, and only for, an `operator` that is a function.
        probes: number of random vectors, at least 2, or None for exact traces.
        seed: of the random vectors, where there are any.

    Returns:
        the value, shape (...), and its standard error.

    Raises:
        ValueError: if an argument is missing, superfluous or out of range, or a matrix not square or finite.

    >>> value, standard_error = logdet_series([[0.5, 3.0], [0.0, -0.4]], terms=60)
    >>> print(f"{value:.12f}")  # ln(1.5 * 0.6)
    -0.105360515658
    """
    if not callable(operator):
        require(dimension is None, "dimension", dimension, "left out when operator is a matrix")
        matrix = _require_square("operator", operator)
        if probes is None:
            return Estimate(np.trace(logm_series(matrix, terms), axis1=-2, axis2=-1)[()], 0.0)
        require(matrix.ndim == 2, "operator", matrix.shape, "a single matrix when probes are drawn")
        operator, dimension = (lambda vector: matrix @ vector), matrix.shape[0]
    dimension = require_integer("dimension", dimension, minimum=1)
    terms = require_integer("terms", terms, minimum=1)

    def log_product(vector: np.ndarray) -> np.ndarray:
        return _log_series_product(operator, vector, terms)

    if probes is None:
        return Estimate(sum(log_product(unit)[i] for i, unit in enumerate(np.eye(dimension))), 0.0)
    return hutchinson_trace(log_product, dimension, probes, seed)


def _log_series_product(matvec: MatrixVectorProduct, vector: np.ndarray, terms: int) -> np.ndarray:
    """Apply the first terms of ln(I + J) to a vector: J z - J^2 z / 2 + ..., products with J only."""
    power = _apply(matvec, vector)
    total = power
    for n in range(2, terms + 1):
        power = -_apply(matvec, power)
        total = total + power / n
    return total


def _apply(matvec: MatrixVectorProduct, vector: np.ndarray) -> np.ndarray:
    product = np.asarray(matvec(vector))
    wanted = f"a function that returns shape {vector.shape}"
    require(product.shape == vector.shape, "matvec", product.shape, wanted)
    is_finite = product.dtype.kind in "biufc" and bool(np.isfinite(product).all())
    require(is_finite, "matvec", product, "a function that returns finite numbers")
    return product


def _require_square(name: str, matrix: np.ndarray) -> np.ndarray:
    """The matrix in double precision, real or complex."""
    array = np.asarray(matrix)
    is_square = array.ndim >= 2 and array.shape[-1] == array.shape[-2] > 0
    require(is_square, name, matrix, "square, of shape (..., k, k)")
    require(array.dtype.kind in "biufc", name, matrix, "numeric")
    require(bool(np.isfinite(array).all()), name, matrix, "finite")
    return array.astype(complex if array.dtype.kind == "c" else float)
