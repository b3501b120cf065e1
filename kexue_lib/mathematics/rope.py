"""Shapes of a rope that turns steadily about an axis: the skipping rope and the hanging rope.

Both are relative equilibria of a uniform, inextensible, perfectly flexible rope, so both stay in a plane
through the axis. Tensions are given per line density: multiply by the mass per length to get a force.
Sources: https://kexue.fm/archives/6784; A. Nordmark and H. Essén, Eur. J. Phys. 28 (2007) 241, for the
skipping rope; I. Kolodner, Comm. Pure Appl. Math. 8 (1955) 395, for the hanging rope.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, elementwise

from kexue_lib.validation import require, require_integer, require_real


@dataclass(frozen=True)
class Troposkien:
    """The shape of a skipping rope without gravity; made by `troposkien`.

    Attributes:
        length: length of the rope.
        span: distance between its two ends, which lie on the axis; same unit as the length.
        modulus: k of the elliptic functions, between 0 (taut) and 1 (infinitely long).
        complementary_modulus: k' = sqrt(1 - k^2), with all its digits also where k rounds to 1.
        height: radius at the middle, in the unit of the length.
        horizontal_tension: component of the tension along the axis, the same everywhere on the rope,
            divided by line density and squared angular velocity: a squared length.
        end_tension: tension at the two ends, divided in the same way.
    """

    length: float
    span: float
    modulus: float
    complementary_modulus: float
    height: float
    horizontal_tension: float
    end_tension: float

    def profile(self, z: ArrayLike) -> float | np.ndarray:
        r"""Return the distance from the axis at the places z along it.

        $$r(z) = h\,\mathrm{sn}\big(2K(k)\,z/d,\;k\big)$$

        Args:
            z: places between 0 and the span, of any shape.

        Returns:
            Radii of the shape of `z`, in the unit of the length; a float for a scalar.

        Raises:
            ValueError: if a place lies outside the span.

        >>> round(troposkien(2.0).profile(0.25), 6)
        0.624199
        """
        z = np.asarray(z, dtype=float)
        outside = z[~((z >= 0) & (z <= self.span))]
        if outside.size:
            require(False, "z", float(outside[0]), f"between 0 and the span {self.span:g}")
        quarter_period = special.ellipkm1(self.complementary_modulus**2)
        distance_to_end = np.minimum(z, self.span - z)  # both halves alike, to the last digit
        sn, _, _, _ = special.ellipj(2 * quarter_period * distance_to_end / self.span, self.modulus**2)
        radius = self.height * sn
        return float(radius) if radius.ndim == 0 else radius


def troposkien(length: float, span: float = 1.0) -> Troposkien:
    r"""Return the shape of a rope spun about the line through its two ends, without gravity.

    The shape does not depend on the angular velocity. With the complete elliptic integrals K and E of
    modulus k, for length L, span d, height h and line density $\rho$,

    $$\frac Ld = \frac{2E}{(1-k^2)K} - 1,\quad \frac hd = \frac{k}{(1-k^2)K},\quad
      \frac{H}{\rho\omega^2d^2} = \frac1{4(1-k^2)K^2},\quad
      \frac{T_{\mathrm{end}}}{\rho\omega^2d^2} = \frac{1+k^2}{4(1-k^2)^2K^2}.$$

    The first equation is solved for k to full precision, from a barely taut to a very long rope.

    Args:
        length: length of the rope, greater than the span.
        span: distance between the ends, positive, in the same unit.

    Returns:
        The shape with its `modulus`, `height`, tensions and `profile`.

    Raises:
        ValueError: if an argument is not a finite positive number or the rope is not longer than its span.

    >>> rope = troposkien(length=2.0)
    >>> round(rope.modulus, 10), round(rope.height, 10)
    (0.7239868281, 0.8114138298)
    """
    span = require_real("span", span, above=0)
    length = require_real("length", length, above=0)
    require(length > span, "length", length, f"longer than the span {span:g}")
    log_odds = _log_odds_of_modulus((length - span) / span)
    modulus_squared, complement_squared = special.expit(log_odds), special.expit(-log_odds)
    quarter_period = special.ellipkm1(complement_squared)
    modulus = np.sqrt(modulus_squared)
    horizontal_tension = span**2 / (4 * complement_squared * quarter_period**2)
    return Troposkien(
        length=length,
        span=span,
        modulus=float(modulus),
        complementary_modulus=float(np.sqrt(complement_squared)),
        height=float(span * modulus / (complement_squared * quarter_period)),
        horizontal_tension=float(horizontal_tension),
        end_tension=float(horizontal_tension * (1 + modulus_squared) / complement_squared),
    )


def _log_odds_of_modulus(slack: float) -> float:
    """Return log(k^2 / (1 - k^2)) for the relative slack L/d - 1 of a troposkien.

    Both k^2 and 1 - k^2 keep all their digits in this variable, near 0 as well as near 1.
    """

    def log_slack(log_odds: float) -> float:
        # L/d - 1 = 2 (E - (1-k^2) K) / ((1-k^2) K), with the difference as one integral, DLMF 19.25.1.
        modulus_squared, complement_squared = special.expit(log_odds), special.expit(-log_odds)
        integral = special.elliprd(0, 1, complement_squared)
        return np.log(2 / 3 * modulus_squared * integral / special.ellipkm1(complement_squared))

    # The slack is the odds times a factor of at most 1, and above exp(-10) for every float.
    lowest = np.log(slack) - 1
    return brentq(lambda log_odds: log_slack(log_odds) - np.log(slack), lowest, lowest + 11, xtol=1e-15)


class HangingCurve(NamedTuple):
    """Points along a hanging rope from the clamp to the free end; four arrays of equal length.

    Attributes:
        arc_length: length of rope between the clamp and the point.
        radius: signed distance from the axis; the clamp is on the positive side.
        depth: vertical distance below the clamp.
        tension: tension per line density, zero at the free end.
    """

    arc_length: np.ndarray
    radius: np.ndarray
    depth: np.ndarray
    tension: np.ndarray


@dataclass(frozen=True)
class HangingRope:
    """One relative equilibrium of a rope that hangs from a rotating clamp; made by `hanging`.

    Attributes:
        radius: distance of the clamp from the vertical axis.
        length: length of the rope.
        angular_velocity: in radians per unit of time.
        gravity: acceleration downwards.
        tip_radius: signed distance of the free end from the axis; negative beyond the axis.
        drop: vertical distance of the free end below the clamp.
        clamp_tension: tension at the clamp per line density, in squared units of velocity.
    """

    radius: float
    length: float
    angular_velocity: float
    gravity: float
    tip_radius: float
    drop: float
    clamp_tension: float

    def curve(self, count: int) -> HangingCurve:
        """Return `count` points, at equal distances along the rope, from the clamp to the free end.

        Args:
            count: number of points, at least 2.

        Returns:
            The arrays `arc_length, radius, depth, tension`, each of shape `(count,)`.

        Raises:
            ValueError: if `count` is not a whole number of at least 2.

        >>> rope = hanging(radius=0.2, length=1.0, angular_velocity=1.0)[0]
        >>> [round(float(values[-1]), 6) for values in rope.curve(50)]
        [1.0, 0.222085, 0.999756, 0.0]
        """
        count = require_integer("count", count, minimum=2)
        height = np.linspace(1, 0, count)
        tip_radius = self.tip_radius / self.length
        rotation = self.angular_velocity**2 * self.length / self.gravity
        shape = _shape_above_tip(np.array([tip_radius]), rotation, height[::-1])[:, 0, ::-1]
        relative_radius, relative_slope, fall = shape
        return HangingCurve(
            arc_length=self.length * (1 - height),
            radius=self.tip_radius * relative_radius,
            depth=self.length * (fall[0] - fall),
            tension=self.length * self.gravity * height * np.hypot(1, tip_radius * relative_slope),
        )


def hanging(
    radius: float, length: float, angular_velocity: float, gravity: float = 9.8
) -> tuple[HangingRope, ...]:
    r"""Return every steady shape of a rope hung from a clamp that circles a vertical axis.

    With the arc length $\sigma$ measured from the free end, radius x and tension T, the slope
    $w = T x' / \sigma$ (derivative towards the free end) obeys

    $$\frac{dx}{d\sigma} = -\frac{w}{\sqrt{w^2+g^2}},\qquad
      \frac{dw}{d\sigma} = \frac{\omega^2x - w}{\sigma},\qquad
      w(0) = \omega^2 x(0),\qquad T = \sigma\sqrt{w^2+g^2}.$$

    One solution leaves each tip radius x(0); it is a shape if it ends at the clamp, x(L) = R. The tip
    radius is searched over its whole range, R - L to R + L. On the axis (R = 0) the problem is Kolodner's:
    besides the straight rope there are n shapes when $j_{0,n} < 2\omega\sqrt{L/g} \le j_{0,n+1}$, with the
    zeros of the Bessel function $J_0$; each stands for its mirror image too. Pairs of shapes that are just
    being born (tip radii nearer than about 1e-6 lengths) cannot be told apart and are left out.

    Args:
        radius: distance R of the clamp from the axis, at least 0.
        length: length L of the rope, positive, in the same unit.
        angular_velocity: at least 0, in radians per unit of time; at most sqrt(1000 g / L), where a call
            takes seconds (the work grows faster than the square of the angular velocity).
        gravity: positive, in consistent units; the default is for metres and seconds.

    Returns:
        The shapes, in the order of their tip radii. For `radius=0` the first is the straight rope, and
        the others have a positive tip radius.

    Raises:
        ValueError: if an argument is not a finite number in its range.

    >>> [round(rope.tip_radius, 6) for rope in hanging(0.0, 1.0, angular_velocity=3.0, gravity=1.0)]
    [0.0, 0.149734, 0.987568]
    """
    radius = require_real("radius", radius, minimum=0)
    angular_velocity = require_real("angular_velocity", angular_velocity, minimum=0)
    length = require_real("length", length, above=0)
    gravity = require_real("gravity", gravity, above=0)
    fastest = np.sqrt(1000 * gravity / length)
    require(angular_velocity <= fastest, "angular_velocity", angular_velocity, f"at most {fastest:g} here")
    # In units of the length and of gravity two numbers are left: this ratio and the clamp's radius.
    rotation = angular_velocity**2 * length / gravity
    tip_radii = _tip_radii(radius / length, rotation)
    _, relative_slope, fall = _shape_at_clamp(tip_radii, rotation)
    clamp_tensions = length * gravity * np.hypot(1, tip_radii * relative_slope)
    return tuple(
        HangingRope(radius, length, angular_velocity, gravity, float(tip), float(drop), float(tension))
        for tip, drop, tension in zip(length * tip_radii, length * fall, clamp_tensions, strict=True)
    )


def _tip_radii(radius: float, rotation: float) -> np.ndarray:
    """Return the tip radii of all shapes, in units of the length, in increasing order."""

    def miss(tip_radii: np.ndarray, tolerance: float = 1e-13) -> np.ndarray:
        relative_radius, _, _ = _shape_at_clamp(tip_radii, rotation, tolerance)
        return tip_radii * relative_radius - radius

    # As a function of the tip radius, `miss` swings with zeros and turning points about 3 / rotation
    # apart or more (measured up to rotation = 1000): a dozen points from one to the next.
    # The ends lie a little outside the possible range, so that no rounding pushes a shape out; on the
    # axis the scan starts next to the straight rope.
    lowest, highest = (radius - 1.01 if radius > 0 else 1e-6), radius + 1.01
    tip_radii = np.linspace(lowest, highest, 33 + int(4 * rotation * (highest - lowest)))
    misses = miss(tip_radii, tolerance=1e-10)
    tip_radii, misses = _with_turning_points(tip_radii, misses, miss)

    straight = np.zeros(1 if radius == 0 else 0)
    changes = np.flatnonzero(np.signbit(misses[:-1]) != np.signbit(misses[1:]))
    if changes.size == 0:
        return straight
    margin = 1e-6 / (1 + rotation)  # a zero next to a point of the scan may lie on its other side
    brackets = np.maximum(tip_radii[changes] - margin, lowest), tip_radii[changes + 1] + margin
    roots = elementwise.find_root(miss, brackets)
    # A bracket without a change of sign at full precision holds a pair that is only being born.
    return np.concatenate([straight, roots.x[roots.success]])


def _with_turning_points(
    tip_radii: np.ndarray, misses: np.ndarray, miss: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Add the points where `misses` turns back near zero: a pair of zeros may hide between two points."""
    before, here, after = misses[:-2], misses[1:-1], misses[2:]
    side = np.sign(here)
    turns_towards_zero = (side * before >= side * here) & (side * after > side * here)
    # A parabola through the three points dips below the middle one by less than the larger step.
    may_reach_zero = np.abs(here) < np.maximum(np.abs(before - here), np.abs(after - here))
    nearest = 1 + np.flatnonzero(turns_towards_zero & may_reach_zero)
    if nearest.size == 0:
        return tip_radii, misses
    turning = elementwise.find_minimum(
        lambda tip, side: side * miss(tip),
        (tip_radii[nearest - 1], tip_radii[nearest], tip_radii[nearest + 1]),
        args=(np.sign(misses[nearest]),),
    )
    tip_radii = np.append(tip_radii, turning.x[turning.success])
    misses = np.append(misses, miss(turning.x[turning.success]))
    order = np.argsort(tip_radii)
    return tip_radii[order], misses[order]


def _shape_at_clamp(tip_radii: np.ndarray, rotation: float, tolerance: float = 1e-13) -> np.ndarray:
    """Return relative radius, relative slope and height above the tip at the clamp, shape `(3, tips)`."""
    return _shape_above_tip(tip_radii, rotation, np.array([1.0]), tolerance)[:, :, -1]


def _shape_above_tip(
    tip_radii: np.ndarray, rotation: float, heights: np.ndarray, tolerance: float = 1e-13
) -> np.ndarray:
    """Integrate the rope upwards from several free ends at once, in units of its length and of gravity.

    Radius x and slope w are divided by the tip radius X: this makes the small shapes, down to the
    linear one at X = 0 (a Bessel function), as accurate as the large ones.

    Args:
        tip_radii: radii X of the free ends, shape `(tips,)`.
        rotation: squared angular velocity times length over gravity.
        heights: increasing arc lengths from the free end, between 0 and 1, shape `(heights,)`.
        tolerance: relative and absolute error allowed to the integrator.

    Returns:
        `x / X`, `w / X` and the vertical distance from the tip, shape `(3, tips, heights)`.
    """

    def derivative(height: float, state: np.ndarray) -> np.ndarray:
        radius, slope, _ = state.reshape(3, -1)
        cosine = 1 / np.sqrt(1 + (tip_radii * slope) ** 2)
        return np.concatenate([-slope * cosine, (rotation * radius - slope) / height, cosine])

    # The equation is singular at the tip; its series carries the solution over the first little step.
    start = 1e-4 / (1 + rotation)
    near_tip = _series_at_tip(tip_radii, rotation, heights[heights <= start])
    first_state = _series_at_tip(tip_radii, rotation, np.array([start])).reshape(-1)
    solution = solve_ivp(
        derivative,
        (start, 1.0),
        first_state,
        method="DOP853",
        t_eval=heights[heights > start],
        rtol=tolerance,
        atol=tolerance,
    )
    return np.concatenate([near_tip, solution.y.reshape(3, tip_radii.size, -1)], axis=2)


def _series_at_tip(tip_radii: np.ndarray, rotation: float, heights: np.ndarray) -> np.ndarray:
    """Return the same three quantities from their Taylor polynomials of degree 2 in the arc length.

    A coefficient of w is the one of rotation * x divided by its degree plus one.
    """
    tip_radii = tip_radii[:, None]
    cosine = 1 / np.sqrt(1 + (tip_radii * rotation) ** 2)
    radius_1 = -rotation * cosine
    slope_1 = rotation * radius_1 / 2
    radius_2 = -(cosine**3) * slope_1 / 2
    slope_2 = rotation * radius_2 / 3
    fall_2 = -(tip_radii**2) * rotation * cosine**3 * slope_1 / 2
    return np.stack(
        [
            1 + radius_1 * heights + radius_2 * heights**2,
            rotation + slope_1 * heights + slope_2 * heights**2,
            cosine * heights + fall_2 * heights**2,
        ]
    )
