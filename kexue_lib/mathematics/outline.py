"""Convex outlines that are symmetric about both axes, measured along their arc length.

Sources: https://kexue.fm/archives/6818 (2019), for the half-width as a function of arc length.

>>> sheet = ellipse(2, 1)
>>> print(f"{sheet.quarter_length:.12f} {sheet.area:.12f}")
2.422112055137 6.283185307180
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebder, chebroots, chebval
from scipy.fft import dct
from scipy.optimize.elementwise import find_root

from kexue_lib.validation import require, require_real

__all__ = ["Outline", "ellipse", "from_support", "superellipse"]

RIGHT_ANGLE = np.pi / 2

Curve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Outline:
    """A convex closed curve that is symmetric about both axes, given by its quarter from (a, 0) to (0, b).

    The quarter is a function of a direction (cos t, sin t), 0 <= t <= pi/2. Internally t runs through a
    smooth step of a parameter u in [0, 1] that slows down at both ends, so that the fractional powers
    of a superellipse there, too, are smooth enough for Chebyshev series of full accuracy.

    Args:
        name: shown in messages.
        point: maps arrays (cos t, sin t) to the arrays (x, y).
        velocity: maps arrays (cos t, sin t) to the derivatives (dx/dt, dy/dt).

    >>> sheet = ellipse(2, 1)
    >>> print(f"{sheet.quarter_length:.12f} {sheet.area:.12f}")
    2.422112055137 6.283185307180
    """

    name: str
    point: Curve = field(repr=False)
    velocity: Curve = field(repr=False)

    @cached_property
    def arc_length(self) -> Chebyshev:
        """Arc length from the vertex as a series in u; its degree tells how demanding the outline is."""

        def speed(u: np.ndarray) -> np.ndarray:
            return np.hypot(*self.velocity(*_direction(u))) * RIGHT_ANGLE * smooth_step_slope(u)

        return _chebyshev_series(speed, self.name).integ(lbnd=0)

    @property
    def quarter_length(self) -> float:
        """A quarter of the perimeter."""
        return float(self.arc_length(1.0))

    @cached_property
    def area(self) -> float:
        """Area of the whole flat sheet, 2 times the integral of x dy - y dx over the quarter."""

        def swept(u: np.ndarray) -> np.ndarray:
            (x, y), (dx, dy) = self.point(*_direction(u)), self.velocity(*_direction(u))
            return 2 * (x * dy - y * dx) * RIGHT_ANGLE * smooth_step_slope(u)

        return float(_chebyshev_series(swept, self.name).integ(lbnd=0)(1.0))

    def half_width(self, arc_length: np.ndarray) -> np.ndarray:
        """Half-width h(s) of the sheet, same shape as `arc_length`; see `half_width_and_angle` for errors."""
        return self.half_width_and_angle(arc_length)[0]

    def normal_angle(self, arc_length: np.ndarray) -> np.ndarray:
        """Angle of the outward normal to the long axis; h'(s) is its cosine. See `half_width_and_angle`."""
        return self.half_width_and_angle(arc_length)[1]

    def half_width_and_angle(self, arc_length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half-width and normal angle (radians, from 0 at the vertex to pi/2), each shaped as `arc_length`.

        Raises:
            ValueError: if an arc length lies outside [0, quarter_length].
        """
        direction = self._direction_at(arc_length)
        dx, dy = self.velocity(*direction)
        return self.point(*direction)[1], np.arctan2(-dx, dy)

    def perimeter_point(self, distance: np.ndarray) -> np.ndarray:
        """Points of the whole curve, shape `distance.shape + (2,)`, counter-clockwise from (a, 0).

        Raises:
            ValueError: if a distance, positive or negative, is not finite.
        """
        require(bool(np.isfinite(distance).all()), "distance", distance, "finite")
        quarter, remainder = np.divmod(np.asarray(distance, float), self.quarter_length)
        quarter = quarter.astype(int) % 4
        arc_length = np.where(quarter % 2 == 0, remainder, self.quarter_length - remainder)
        x, y = self.point(*self._direction_at(arc_length))
        return np.stack([np.where((quarter == 0) | (quarter == 3), x, -x), np.where(quarter < 2, y, -y)], -1)

    def scaled(self, factor: float) -> "Outline":
        """The same shape, `factor` times as large: the way to give two outlines equal perimeters.

        Raises:
            ValueError: if `factor` is not positive and finite.
        """
        factor = require_real("factor", factor, above=0)
        return Outline(
            f"{factor:g} * {self.name}",
            lambda cosine, sine: tuple(factor * value for value in self.point(cosine, sine)),
            lambda cosine, sine: tuple(factor * value for value in self.velocity(cosine, sine)),
        )

    def _direction_at(self, arc_length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        arc_length, length = np.asarray(arc_length, float), self.quarter_length
        inside = np.all((arc_length >= -1e-12 * length) & (arc_length <= (1 + 1e-12) * length))
        require(bool(inside), "arc_length", arc_length, f"within [0, {length:g}]")
        return _direction(solve_increasing(self.arc_length, np.clip(arc_length, 0, length)))


def ellipse(a: float, b: float) -> Outline:
    """The ellipse with semi-axes a (the one that is bent) and b, as the outline (a cos t, b sin t).

    Raises:
        ValueError: if a or b is not positive and finite.
    """
    outline = superellipse(a, b, 2)
    return Outline(f"ellipse({a:g}, {b:g})", outline.point, outline.velocity)


def superellipse(a: float, b: float, exponent: float) -> Outline:
    """The curve |x/a|^p + |y/b|^p = 1 with p = `exponent`, by its polar angle t in the (x/a, y/b) plane.

    In that plane the radius is r = (cos^p t + sin^p t)^(-1/p), and the velocity simplifies to
    r^(p+1) (-sin^(p-1) t, cos^(p-1) t), which has no singular power for any p > 1.

    Raises:
        ValueError: if a or b is not positive or `exponent` not above 1 (1 is a rhombus, with corners).

    >>> print(f"{superellipse(2, 1, 4).area:.10f}")  # 4ab Gamma(1 + 1/p)^2 / Gamma(1 + 2/p)
    7.4162987092
    """
    a, b = require_real("a", a, above=0), require_real("b", b, above=0)
    p = require_real("exponent", exponent, above=1)

    def point(cosine: np.ndarray, sine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius = (cosine**p + sine**p) ** (-1 / p)
        return a * radius * cosine, b * radius * sine

    def velocity(cosine: np.ndarray, sine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = (cosine**p + sine**p) ** (-1 - 1 / p)
        return -a * scale * sine ** (p - 1), b * scale * cosine ** (p - 1)

    return Outline(f"superellipse({a:g}, {b:g}, {p:g})", point, velocity)


def from_support(coefficients: np.ndarray) -> Outline:
    """The outline with support function p(phi) = sum over k of c_k cos(2 k phi).

    Here phi is the angle of the outward normal: x = p cos phi - p' sin phi, y = p sin phi + p' cos phi, and
    the radius of curvature is p + p'' = sum of (1 - 4 k^2) c_k cos(2 k phi). The perimeter is 2 pi c_0.

    Args:
        coefficients: c_0, c_1, ..., shape (n,).

    Raises:
        ValueError: if the shape is wrong, a value is not finite, or the radius of curvature is not positive
            everywhere (the curve would not be convex).

    >>> print(f"{from_support([1.0, 0.2]).quarter_length:.12f}")
    1.570796326795
    """
    c = np.asarray(coefficients, float)
    require(c.ndim == 1 and c.size > 0, "coefficients", coefficients, "a non-empty list of numbers")
    require(bool(np.isfinite(c).all()), "coefficients", coefficients, "finite")
    frequency = 2 * np.arange(c.size)
    smallest = _minimum_of_cosine_series((1 - frequency**2) * c)
    wanted = f"such that p + p'' > 0 (a convex outline; here it falls to {smallest:.6g})"
    require(smallest > 0, "coefficients", coefficients, wanted)

    def point(cosine: np.ndarray, sine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angles = np.arctan2(sine, cosine)[..., None] * frequency
        support, slope = np.cos(angles) @ c, -np.sin(angles) @ (frequency * c)
        return support * cosine - slope * sine, support * sine + slope * cosine

    def velocity(cosine: np.ndarray, sine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angles = np.arctan2(sine, cosine)[..., None] * frequency
        radius = np.cos(angles) @ ((1 - frequency**2) * c)
        return -radius * sine, radius * cosine

    return Outline(f"from_support({np.array2string(c, precision=4, separator=', ')})", point, velocity)


def smooth_step(u: np.ndarray) -> np.ndarray:
    """Rise from 0 to 1 with a triple root at either end."""
    return u**3 * (10 - 15 * u + 6 * u**2)


def smooth_step_slope(u: np.ndarray) -> np.ndarray:
    """The derivative of `smooth_step`."""
    return 30 * (u * (1 - u)) ** 2


def _direction(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cos t, sin t) for t = pi/2 times the smooth step of u, both accurate where they are close to zero."""
    return np.sin(RIGHT_ANGLE * smooth_step(1 - u)), np.sin(RIGHT_ANGLE * smooth_step(u))


def chebyshev_nodes(degree: int) -> np.ndarray:
    """The degree + 1 extrema of a Chebyshev polynomial moved to [0, 1], ascending, both ends included."""
    return np.sin(RIGHT_ANGLE * np.arange(degree + 1) / degree) ** 2


def chebyshev_coefficients(values: np.ndarray) -> np.ndarray:
    """Coefficients of the polynomial through `values` at `chebyshev_nodes`."""
    coefficients = dct(values[::-1], type=1) / (values.size - 1)
    coefficients[[0, -1]] /= 2
    return coefficients


def _chebyshev_series(function: Callable, name: str) -> Chebyshev:
    """The series of a smooth function on [0, 1], as long as 14 digits need."""
    for degree in 2 ** np.arange(5, 14):
        coefficients = chebyshev_coefficients(function(chebyshev_nodes(degree)))
        rounding = 1e-15 * np.abs(coefficients).max()
        if np.abs(coefficients[-degree // 8 :]).max() < 10 * rounding:
            return Chebyshev(coefficients, domain=[0, 1]).trim(rounding)
    raise ValueError(f"outline must be smooth, got {name}: {degree} Chebyshev terms do not resolve it")


def solve_increasing(function: Callable, targets: np.ndarray) -> np.ndarray:
    """The u in [0, 1] with function(u) = target, for each target between function(0) and function(1)."""
    targets = np.clip(targets, function(0.0), function(1.0))  # rounding may have put one just outside
    bracket = np.zeros_like(targets), np.ones_like(targets)
    return find_root(lambda u, target: function(u) - target, bracket, args=(targets,)).x


def _minimum_of_cosine_series(coefficients: np.ndarray) -> float:
    """Minimum of sum of c_k cos(k theta), a polynomial in cos(theta): at an end or a critical point."""
    slope = np.trim_zeros(chebder(coefficients), "b")
    critical = chebroots(slope) if slope.size > 1 else np.array([])
    inner = critical[np.abs(critical.imag) < 1e-6].real
    return float(chebval(np.clip(np.concatenate([[-1, 1], inner]), -1, 1), coefficients).min())
