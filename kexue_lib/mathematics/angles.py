"""The law of the angle between two random directions in n dimensions.

Two independent vectors with an isotropic distribution (Gaussian, or uniform on the sphere) enclose an
angle whose density is proportional to sin^(n-2); everything here follows from that one line. Angles are
in radians. Source: https://kexue.fm/archives/7076. The variance and the kurtosis in closed form come from
the characteristic function of the angle, a quotient of Gamma functions. Values keep their relative
accuracy in both tails and for dimensions of many millions: no Gamma function is ever formed.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from kexue_lib.validation import require, require_integer


def pdf(angle: ArrayLike, dimension: int) -> float | np.ndarray:
    r"""Return the probability density of the angle between two random vectors.

    $$p_n(\theta) = \frac{\Gamma(n/2)}{\Gamma((n-1)/2)\,\sqrt\pi}\,\sin^{n-2}\theta$$

    Args:
        angle: angles in radians between 0 and pi, of any shape.
        dimension: number of dimensions n, a whole number of at least 2.

    Returns:
        The density per radian, of the shape of `angle`; a float for a scalar.

    Raises:
        ValueError: if an angle lies outside [0, pi] or the dimension is not a whole number >= 2.

    >>> round(pdf(1.0, dimension=3), 12)  # sin(1) / 2
    0.420735492404
    """
    angle = _require_within("angle", angle, np.pi, "pi")
    dimension = require_integer("dimension", dimension, minimum=2)
    # Gamma(n/2) / Gamma((n-1)/2) as one function: the difference of two logarithms would lose digits.
    peak = special.poch((dimension - 1) / 2, 0.5) / np.sqrt(np.pi)
    cosine = np.cos(angle)
    log_power = np.where(
        np.abs(cosine) < 0.5,
        special.xlog1py((dimension - 2) / 2, -(cosine**2)),  # exact where the sine is almost 1
        special.xlogy(dimension - 2, np.sin(angle)),  # exact where the sine is small
    )
    return _float_if_scalar(peak * np.exp(log_power))


def cdf(angle: ArrayLike, dimension: int) -> float | np.ndarray:
    r"""Return the probability that two random vectors enclose at most this angle.

    For an acute angle, with the regularised incomplete Beta function I,

    $$P(\theta \le t) = \tfrac12\,I_{\sin^2 t}\!\big(\tfrac{n-1}2, \tfrac12\big)
                      = \tfrac12 - \tfrac12\,I_{\cos^2 t}\!\big(\tfrac12, \tfrac{n-1}2\big),$$

    and $P(\theta \le \pi - t) = 1 - P(\theta \le t)$.

    Args:
        angle: angles in radians between 0 and pi, of any shape.
        dimension: number of dimensions n, a whole number of at least 2.

    Returns:
        Probabilities of the shape of `angle`; a float for a scalar.

    Raises:
        ValueError: if an angle lies outside [0, pi] or the dimension is not a whole number >= 2.

    >>> cdf(np.pi / 2, dimension=768)
    0.5
    """
    angle = _require_within("angle", angle, np.pi, "pi")
    shape = (require_integer("dimension", dimension, minimum=2) - 1) / 2
    acute = np.minimum(angle, np.pi - angle)
    tail = 0.5 * np.where(
        acute < np.pi / 4,
        special.betainc(shape, 0.5, np.sin(acute) ** 2),
        # The cosine of the angle, measured from the right angle so that the centre is exact.
        special.betaincc(0.5, shape, np.sin(np.pi / 2 - acute) ** 2),
    )
    return _float_if_scalar(np.where(angle <= np.pi / 2, tail, 1 - tail))


def quantile(probability: ArrayLike, dimension: int) -> float | np.ndarray:
    """Return the angle below which two random vectors lie with this probability: the inverse of `cdf`.

    Args:
        probability: probabilities between 0 and 1, of any shape.
        dimension: number of dimensions n, a whole number of at least 2.

    Returns:
        Angles in radians of the shape of `probability`; a float for a scalar. Small angles keep their
        relative accuracy however small the probability.

    Raises:
        ValueError: if a probability lies outside [0, 1] or the dimension is not a whole number >= 2.

    >>> round(float(np.degrees(quantile(0.001, dimension=768))), 6)
    83.611388
    """
    probability = _require_within("probability", probability, 1.0, "1")
    shape = (require_integer("dimension", dimension, minimum=2) - 1) / 2
    tail = np.minimum(probability, 1 - probability)
    # The two forms of `cdf`, inverted; again each is used where its argument is the small one.
    sine_squared = special.betaincinv(shape, 0.5, 2 * tail)
    cosine_squared = special.betainccinv(0.5, shape, 2 * tail)
    acute = np.where(
        sine_squared < 0.5,
        np.arcsin(np.sqrt(sine_squared)),
        np.pi / 2 - np.arcsin(np.sqrt(cosine_squared)),
    )
    return _float_if_scalar(np.where(probability <= 0.5, acute, np.pi - acute))


def variance(dimension: int) -> float:
    r"""Return the variance of the angle, in square radians.

    $$\operatorname{Var}_n(\theta) = \tfrac12\,\psi_1(n/2) = \frac1n + \frac1{n^2} + O(n^{-3})$$

    Args:
        dimension: number of dimensions n, a whole number of at least 2.

    Raises:
        ValueError: if the dimension is not a whole number of at least 2.

    >>> round(variance(dimension=3), 12)  # pi**2 / 4 - 2
    0.467401100272
    """
    dimension = require_integer("dimension", dimension, minimum=2)
    return float(special.polygamma(1, dimension / 2)) / 2


def excess_kurtosis(dimension: int) -> float:
    r"""Return the excess kurtosis of the angle: 0 would be a normal law, and it tends there like -2/n.

    $$\frac{E(\theta-\pi/2)^4}{\operatorname{Var}_n(\theta)^2} - 3 = -\frac{\psi_3(n/2)}{2\,\psi_1(n/2)^2}$$

    Args:
        dimension: number of dimensions n, a whole number of at least 2.

    Raises:
        ValueError: if the dimension is not a whole number of at least 2.

    >>> round(excess_kurtosis(dimension=2), 12)  # the uniform law
    -1.2
    """
    dimension = require_integer("dimension", dimension, minimum=2)
    trigamma, pentagamma = special.polygamma([1, 3], dimension / 2)
    return float(-pentagamma / (2 * trigamma**2))


def sample(count: int, dimension: int, seed: int) -> np.ndarray:
    r"""Draw angles from their exact law, at a cost that does not depend on the dimension.

    $$\sin^2(\theta/2) = \tfrac12(1 - \cos\theta) \sim \mathrm{Beta}\big(\tfrac{n-1}2, \tfrac{n-1}2\big)$$

    Args:
        count: number of independent angles, at least 1.
        dimension: number of dimensions n, a whole number of at least 2.
        seed: whole number of at least 0; the same seed gives the same angles.

    Returns:
        Angles in radians, of shape `(count,)`.

    Raises:
        ValueError: if an argument is not a whole number or too small.

    >>> sample(4, dimension=1000, seed=0).shape
    (4,)
    """
    count = require_integer("count", count, minimum=1)
    shape = (require_integer("dimension", dimension, minimum=2) - 1) / 2
    generator = np.random.default_rng(require_integer("seed", seed, minimum=0))
    return 2 * np.arcsin(np.sqrt(generator.beta(shape, shape, size=count)))


def _require_within(name: str, values: ArrayLike, highest: float, highest_name: str) -> np.ndarray:
    """Return `values` as a float array if they all lie between 0 and `highest`; NaN does not."""
    values = np.asarray(values, dtype=float)
    outside = values[~((values >= 0) & (values <= highest))]
    if outside.size:
        require(False, name, float(outside[0]), f"between 0 and {highest_name}")
    return values


def _float_if_scalar(values: np.ndarray) -> float | np.ndarray:
    return float(values) if np.ndim(values) == 0 else values
