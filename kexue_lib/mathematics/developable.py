"""Two flat outlines, each bent like a cylinder along its long axis and glued edge to edge at 90 degrees.

The first sheet is bent around the y-axis direction, the second around the z-axis direction; the vertex of
either meets the co-vertex of the other. Every cross-section of the body is then a rectangle, and one octant
of the seam, in the arc length s from the vertex of the first sheet, is

    y(s) = h1(s),   z(s) = h2(l - s),   x(s) = integral of sqrt(D) ds,   D = 1 - h1'(s)^2 - h2'(l - s)^2

with h the half-width of a sheet and l a quarter of the perimeter. The gluing exists exactly if D >= 0.

A half-width seen along the outline has slope cos(phi), where phi is the angle of the outward normal, so
D = sin(e) cos(phi1 - phi2) with the excess e = phi1 + phi2 - pi/2. The condition D >= 0 therefore reads
"the two normal angles add up to a right angle at least"; written so, D also loses no digits near the tips.

Sources: https://kexue.fm/archives/6818 (2019); E. D. Demaine and G. N. Price, "Generalized D-forms have no
spurious creases", Discrete & Computational Geometry 43 (2010), for the convexity of the body.

>>> bag = glue(ellipse(2, 1), ellipse(2, 1))
>>> print(f"{bag.extent:.10f} {bag.volume:.10f}")
1.5697573788 3.1674635919
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.polynomial import Chebyshev

from kexue_lib.mathematics import paper_model
from kexue_lib.mathematics.outline import (
    RIGHT_ANGLE,
    Outline,
    chebyshev_coefficients,
    chebyshev_nodes,
    ellipse,
    from_support,
    smooth_step,
    smooth_step_slope,
    solve_increasing,
    superellipse,
)
from kexue_lib.validation import require, require_integer

__all__ = ["Gluing", "Outline", "ellipse", "enclosed_volume", "from_support", "glue", "superellipse"]

# An excess angle below this (radians) is rounding: the excess of a circle is zero everywhere.
ANGLE_ROUNDING = 1e-10
# Closer to a tip than this fraction of the quarter, arc length keeps too few digits to judge the sign of D.
TIP = 1e-6
# Chebyshev terms of x'(s) below this are noise; more than so many steps are never taken.
STEP_ROUNDING = 1e-12
MOST_STEPS = 8192


@dataclass(frozen=True)
class Gluing:
    """Two outlines of equal perimeter glued at 90 degrees; made by `glue`.

    `arc_length`, `deficit` and `seam` are sampled at the same n points, which crowd towards both tips.
    Lengths, areas and volumes are in the unit of the outlines.

    Args:
        first: the sheet with rulings parallel to y.
        second: the sheet with rulings parallel to z.

    >>> glue(ellipse(1, 2), ellipse(1, 2)).is_glueable  # bent along the short axis
    False
    """

    first: Outline
    second: Outline

    def __post_init__(self):
        perimeters = 4 * self.first.quarter_length, 4 * self.second.quarter_length
        wanted = f"of the perimeter of first = {self.first.name}, {perimeters[0]:.12g}"
        same = abs(perimeters[0] - perimeters[1]) <= 1e-9 * max(perimeters)
        require(same, "second", self.second, f"{wanted}, not {perimeters[1]:.12g}")

    @cached_property
    def _steps(self) -> np.ndarray:
        """Chebyshev nodes, doubled until x'(s) is resolved: an almost sharp corner needs far more than h."""
        degree = 2 * max(self.first.arc_length.degree(), self.second.arc_length.degree())
        while degree < MOST_STEPS:
            nodes = chebyshev_nodes(degree)
            slope = np.sqrt(np.maximum(self._deficit(*self._widths_and_angles_at(nodes)), 0))
            tail = chebyshev_coefficients(slope * smooth_step_slope(nodes))[-degree // 8 :]
            if np.abs(tail).max() < STEP_ROUNDING:
                break
            degree *= 2
        return chebyshev_nodes(degree)

    @cached_property
    def arc_length(self) -> np.ndarray:
        """Arc length along the octant of the seam from the vertex of `first`, shape (n,)."""
        return self.first.quarter_length * smooth_step(self._steps)

    @cached_property
    def _widths_and_angles(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return self._widths_and_angles_at(self._steps)

    def _widths_and_angles_at(self, steps: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Half-width and normal angle of either sheet at the points of the seam."""
        # The nodes are symmetric, so reversing them is l - s without the cancellation of the subtraction.
        walks = (self.first, smooth_step(steps)), (self.second, smooth_step(steps)[::-1])
        return [sheet.half_width_and_angle(sheet.quarter_length * fraction) for sheet, fraction in walks]

    @cached_property
    def deficit(self) -> np.ndarray:
        """What the half-widths leave for x'(s)^2: D = 1 - h1'(s)^2 - h2'(l - s)^2, shape (n,)."""
        return self._deficit(*self._widths_and_angles)

    @staticmethod
    def _deficit(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        (_, first_angle), (_, second_angle) = first, second
        excess = first_angle + second_angle - RIGHT_ANGLE
        excess[np.abs(excess) < ANGLE_ROUNDING] = 0
        return np.sin(excess) * np.cos(first_angle - second_angle)

    @property
    def is_glueable(self) -> bool:
        """Whether D >= 0 along the seam, up to rounding and at least 1e-6 of the quarter away from the tips.

        At a tip D = 0 in every case: the two tangents are perpendicular there.
        """
        return self._smallest_deficit[0] >= 0

    @property
    def _smallest_deficit(self) -> tuple[float, float]:
        length = self.first.quarter_length
        away = (self.arc_length > TIP * length) & (self.arc_length < (1 - TIP) * length)
        index = np.argmin(self.deficit[away])
        return float(self.deficit[away][index]), float(self.arc_length[away][index])

    def _integral(self, weight: np.ndarray | float) -> Chebyshev:
        """Integral of weight(s) x'(s) ds from the tip, as a series in the step parameter."""
        value, position = self._smallest_deficit
        if value < 0:
            raise ValueError(
                f"first = {self.first.name} and second = {self.second.name} cannot be glued: D must not be "
                f"negative, got {value:.6g} at arc length {position:.6g} of {self.first.quarter_length:.6g}"
            )
        slope = np.sqrt(np.maximum(self.deficit, 0))
        values = weight * slope * self.first.quarter_length * smooth_step_slope(self._steps)
        return Chebyshev(chebyshev_coefficients(values), domain=[0, 1]).integ(lbnd=0)

    @cached_property
    def _x(self) -> Chebyshev:
        return self._integral(1.0)

    @cached_property
    def seam(self) -> np.ndarray:
        """Points (x, y, z) of one octant of the seam, shape (n, 3), from one tip of the body to the other.

        Raises:
            ValueError: if the outlines cannot be glued.
        """
        (y, _), (z, _) = self._widths_and_angles
        return np.stack([self._x(self._steps), y, z], axis=-1)

    def seam_at(self, arc_length: np.ndarray) -> np.ndarray:
        """Points of the octant of the seam at any arc lengths, shape `arc_length.shape + (3,)`.

        Raises:
            ValueError: if the outlines cannot be glued or an arc length lies outside [0, quarter_length].
        """
        y = self.first.half_width(arc_length)
        fraction = np.clip(np.asarray(arc_length, float) / self.first.quarter_length, 0, 1)
        z = self.second.half_width(self.second.quarter_length * (1 - fraction))
        return np.stack([self._x(solve_increasing(smooth_step, fraction)), y, z], axis=-1)

    @property
    def extent(self) -> float:
        """Length X of the body along x, from the tip of `first` to the tip of `second`.

        Raises:
            ValueError: if the outlines cannot be glued.
        """
        return float(self._x(1.0))

    @cached_property
    def volume(self) -> float:
        """Volume: the rectangles 2y by 2z, stacked along x: V = 4 times the integral of h1 h2 x'(s) ds.

        Raises:
            ValueError: if the outlines cannot be glued.
        """
        y, z = self.seam[:, 1], self.seam[:, 2]
        return float(self._integral(4 * y * z)(1.0))

    @property
    def efficiency(self) -> float:
        """Volume over that of the sphere with the same surface S: 6 sqrt(pi) V / S^(3/2), at most 1."""
        return 6 * np.sqrt(np.pi) * self.volume / (self.first.area + self.second.area) ** 1.5

    def mesh(self, count: int = 100) -> tuple[np.ndarray, np.ndarray]:
        """The closed body as triangles, cut into `count` slices of equal arc length.

        Returns:
            vertices, shape (4 count, 3), and triangles, shape (8 count - 4, 3): vertex numbers, counter-
            clockwise seen from outside; every edge belongs to exactly two triangles.

        Raises:
            ValueError: if the outlines cannot be glued or `count` is not a whole number of at least 1.

        >>> vertices, triangles = glue(ellipse(2, 1), ellipse(2, 1)).mesh(200)
        >>> print(f"{enclosed_volume(vertices, triangles):.3f}")
        3.167
        """
        count = require_integer("count", count, minimum=1)
        stations = self.seam_at(np.linspace(0, self.first.quarter_length, count + 1))
        corner_signs = np.array([[1, 1, 1], [1, -1, 1], [1, -1, -1], [1, 1, -1]])
        corners = stations[:, None, :] * corner_signs
        # A rectangle shrinks to a segment at either tip: there its corners coincide two by two.
        number = np.arange(4 * (count + 1)).reshape(count + 1, 4)
        number[0] = number[0, [0, 0, 2, 2]]
        number[-1] = number[-1, [0, 1, 1, 0]]
        near, far = number[:-1], number[1:]
        near_next, far_next = np.roll(near, -1, axis=1), np.roll(far, -1, axis=1)
        halves = [(near, near_next, far_next), (near, far_next, far)]
        triangles = np.concatenate([np.stack(half, axis=-1).reshape(-1, 3) for half in halves])
        a, b, c = triangles.T
        used, triangles = np.unique(triangles[(a != b) & (b != c) & (c != a)], return_inverse=True)
        return corners.reshape(-1, 3)[used], triangles.reshape(-1, 3)

    def template(self, length: float = 180.0, ticks: int = 6) -> paper_model.Template:
        """A pattern to print, cut out and glue: both flat sheets, rulings, and equal numbers on equal edges.

        Args:
            length: longer of the two bent axes in millimetres (180 fits on A4).
            ticks: numbered marks on a quarter of an edge.

        Raises:
            ValueError: if the outlines cannot be glued, or an argument is out of range.
        """
        self._integral(1.0)  # a pattern that cannot be glued is worse than none
        return paper_model.draw_template(self.first, self.second, length, ticks)


def glue(first: Outline, second: Outline) -> Gluing:
    """Glue two outlines of equal perimeter, the vertex of either on the co-vertex of the other.

    Raises:
        ValueError: if the perimeters differ by more than 1e-9 of their size; see `Outline.scaled`.
    """
    return Gluing(first, second)


def enclosed_volume(vertices: np.ndarray, triangles: np.ndarray) -> float:
    """Volume inside a closed triangle mesh by the divergence theorem: the sum of det(a, b, c) / 6.

    Args:
        vertices: shape (V, 3).
        triangles: vertex numbers, shape (T, 3), counter-clockwise seen from outside.
    """
    a, b, c = np.moveaxis(np.asarray(vertices)[triangles], 1, 0)
    return float(np.sum(a * np.cross(b, c)) / 6)
