from collections import Counter

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.spatial import ConvexHull

from kexue_lib.mathematics.developable import ellipse, enclosed_volume, from_support, glue, superellipse


def glue_ellipses(ratio):
    return glue(ellipse(ratio, 1), ellipse(ratio, 1))


@pytest.mark.parametrize(
    # Golden values: an independent computation in the parameter t of the ellipse.
    ("ratio", "extent", "volume", "efficiency"),
    [
        (1.2, 0.576873795316, 0.986701736717, 0.506839446229),
        (1.5, 0.986711996558, 1.838366024640, 0.675696206497),
        (2, 1.569757378841, 3.167463591858, 0.756176231562),
        (3, 2.657293348572, 5.737268998870, 0.745555047706),
        (5, 4.747271459993, 10.685298181153, 0.645339166271),
        (10, 9.84004319532, 22.634545527096, 0.483312650804),
    ],
)
def test_two_equal_ellipses(ratio, extent, volume, efficiency):
    bag = glue_ellipses(ratio)
    assert bag.is_glueable
    assert bag.extent == pytest.approx(extent, rel=2e-12)
    assert bag.volume == pytest.approx(volume, rel=1e-12)
    assert bag.efficiency == pytest.approx(efficiency, rel=2e-12)


def test_nearly_a_circle():
    assert glue_ellipses(1.0001).extent == pytest.approx(0.012247754912, rel=1e-10)


def test_two_circles_are_a_doubly_covered_disc():
    disc = glue_ellipses(1)
    assert disc.is_glueable
    assert disc.volume == 0
    assert disc.extent == 0
    np.testing.assert_array_equal(disc.deficit, 0)


def test_seam_of_two_ellipses():
    bag = glue_ellipses(2)
    length = bag.first.quarter_length
    # Golden values: an independent computation in the parameter t. Columns s/l, x, y, z.
    table = np.array(
        [
            [0.1, 0.054888200546, 0.233692436870, 0.992648713775],
            [0.25, 0.279408044853, 0.513093241093, 0.953447487968],
            [0.5, 0.784878689420, 0.804116390975, 0.804116390975],
            [0.75, 1.290349333988, 0.953447487968, 0.513093241093],
            [0.9, 1.514869178295, 0.992648713775, 0.233692436870],
            [1.0, 1.569757378841, 1.0, 0.0],
        ]
    )
    np.testing.assert_allclose(bag.seam_at(table[:, 0] * length), table[:, 1:], rtol=1e-11, atol=1e-12)


def test_deficit_is_one_minus_both_squared_slopes():
    bag = glue_ellipses(2)
    length = bag.first.quarter_length
    slopes = [np.cos(bag.first.normal_angle(s)) for s in (bag.arc_length, length - bag.arc_length)]
    np.testing.assert_allclose(bag.deficit, 1 - slopes[0] ** 2 - slopes[1] ** 2, atol=1e-13)
    golden = np.interp([0.1, 0.25, 0.5], bag.arc_length / length, bag.deficit)
    np.testing.assert_allclose(golden, [0.183994192846, 0.563970116650, 0.759578415896], rtol=1e-3)
    assert bag.deficit.max() == pytest.approx(0.759578415896, rel=1e-11)  # the middle is a node


@pytest.mark.parametrize("outline", [ellipse(2, 1), superellipse(2, 1, 1.5), from_support([1, 0.2, 0.005])])
def test_equal_sheets_give_a_seam_that_is_its_own_image(outline):
    bag = glue(outline, outline)
    seam = bag.seam
    np.testing.assert_allclose(seam[:, 0] + seam[::-1, 0], bag.extent, rtol=1e-12)
    np.testing.assert_allclose(seam[:, 1], seam[::-1, 2], atol=1e-14)


@pytest.mark.parametrize("exponent", [1.5, 2, 3])
def test_the_bent_midline_keeps_its_length(exponent):
    outline = superellipse(2, 1, exponent)
    bag = glue(outline, outline)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    # Graded at both ends, because the first sheet's half-width ends in fractional powers.
    u = (nodes + 1) / 2
    arc_length = outline.quarter_length * u**3 * (10 - 15 * u + 6 * u**2)
    weights = weights / 2 * outline.quarter_length * 30 * (u * (1 - u)) ** 2
    step = 1e-6 * arc_length * (outline.quarter_length - arc_length)
    tangent = (bag.seam_at(arc_length + step) - bag.seam_at(arc_length - step)) / (2 * step[:, None])
    np.testing.assert_allclose(np.linalg.norm(tangent, axis=1)[5:-5], 1, atol=1e-6)
    midline = np.sum(weights * np.sin(outline.normal_angle(arc_length)))
    assert midline == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (superellipse(2, 1, 1.3), superellipse(2, 1, 1.3)),
        (superellipse(2, 1, 2.5), superellipse(2, 1, 2.5)),
        (superellipse(2, 1, 6), superellipse(2, 1, 6)),
        (ellipse(2, 1), from_support([1, 0.25, 0.01])),
        (superellipse(2, 1, 1.5), superellipse(1.7, 1, 1.5)),
    ],
)
def test_extent_of_other_outlines_by_another_quadrature(first, second):
    # tanh-sinh in s with slopes by 1 - cos^2 - cos^2, which knows nothing of steps and Chebyshev series.
    second = second.scaled(first.quarter_length / second.quarter_length)
    length = first.quarter_length
    v = np.linspace(-3.1, 3.1, 400)
    fraction = 1 / (1 + np.exp(-np.pi * np.sinh(v)))
    rest = fraction[::-1]
    slopes = np.cos(first.normal_angle(length * fraction)), np.cos(second.normal_angle(length * rest))
    deficit = np.maximum(1 - slopes[0] ** 2 - slopes[1] ** 2, 0)
    weights = length * fraction * rest * np.pi * np.cosh(v) * (v[1] - v[0])
    bag = glue(first, second)
    assert bag.extent == pytest.approx(np.sum(np.sqrt(deficit) * weights), rel=1e-9)
    widths = first.half_width(length * fraction) * second.half_width(length * rest)
    assert bag.volume == pytest.approx(4 * np.sum(widths * np.sqrt(deficit) * weights), rel=1e-9)


@pytest.mark.parametrize(
    # Golden values: scipy's adaptive quadrature in the square root of the normal angle, matched by brentq.
    ("coefficients", "volume"),
    [
        ([1, 0.3456, -0.0545], 0.8066479350041957),
        ([1, 0.3455, -0.0601, 0.0209, -0.0103], 0.8059675485635331),
        ([1, 0.34, -0.05], 0.8203934887787399),
    ],
)
def test_outlines_with_almost_sharp_corners(coefficients, volume):
    bag = glue(from_support(coefficients), from_support(coefficients))
    assert bag.volume == pytest.approx(volume, rel=2e-7)


def unequal_pair():
    first, second = ellipse(2, 1), from_support([1, 0.25, 0.01])
    return glue(first, second.scaled(first.quarter_length / second.quarter_length))


@pytest.mark.parametrize("bag", [glue_ellipses(1.5), glue_ellipses(4), unequal_pair()])
def test_mesh_and_convex_hull_contain_the_volume_of_the_integral(bag):
    coarse, fine = (enclosed_volume(*bag.mesh(count)) for count in (200, 400))
    assert fine == pytest.approx(bag.volume, rel=2e-4)
    # The error of the mesh falls as 1 / count^2.
    assert (4 * fine - coarse) / 3 == pytest.approx(bag.volume, rel=2e-7)
    assert bag.volume - coarse == pytest.approx(4 * (bag.volume - fine), rel=1e-2)
    vertices, _ = bag.mesh(400)
    assert ConvexHull(vertices).volume == pytest.approx(fine, rel=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_mesh_is_a_closed_oriented_surface(count):
    bag = glue_ellipses(2)
    vertices, triangles = bag.mesh(count)
    assert vertices.shape == (4 * count, 3)
    assert triangles.shape == (8 * count - 4, 3)
    assert len(np.unique(vertices, axis=0)) == 4 * count
    edges = Counter(edge for a, b, c in triangles.tolist() for edge in ((a, b), (b, c), (c, a)))
    assert set(edges.values()) == {1}
    assert all((end, start) in edges for start, end in edges)
    assert enclosed_volume(vertices, triangles) > 0
    # The body is convex: seen from each triangle no vertex lies in front of it.
    a, b, c = np.moveaxis(vertices[triangles], 1, 0)
    normals = np.cross(b - a, c - a)
    assert (normals @ vertices.T - np.sum(normals * a, axis=1)[:, None]).max() < 1e-9


def test_mesh_has_the_area_of_the_two_sheets():
    bag = glue_ellipses(2)
    vertices, triangles = bag.mesh(400)
    a, b, c = np.moveaxis(vertices[triangles], 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(2 * 2 * np.pi, rel=1e-4)


def test_enclosed_volume_of_a_tetrahedron():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) + 7.0
    triangles = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert enclosed_volume(vertices, triangles) == pytest.approx(1 / 6, rel=1e-12)


def test_best_ellipses():
    best = minimize_scalar(lambda ratio: -glue_ellipses(ratio).efficiency, bracket=(2, 2.3, 2.6), tol=1e-9)
    assert -best.fun == pytest.approx(0.7643131358, rel=1e-9)

    # A maximum is flat: its place is found as a zero of the slope, here a central difference. Golden values:
    # the zero of the slope of a Chebyshev fit to an mpmath quadrature in t.
    def slope(ratio, score, step=2e-3):
        a, b, c, d = (score(glue_ellipses(ratio + k * step)) for k in (-2, -1, 1, 2))
        return (a - 8 * b + 8 * c - d) / (12 * step)

    assert brentq(slope, 2.2, 2.4, args=(lambda bag: bag.efficiency,)) == pytest.approx(
        2.31803259663, rel=1e-10
    )

    def volume_per_cubed_perimeter(bag):
        return bag.volume / (4 * bag.first.quarter_length) ** 3

    best_ratio = brentq(slope, 1.55, 1.7, args=(volume_per_cubed_perimeter,))
    assert best_ratio == pytest.approx(1.613621318638, rel=1e-10)
    assert volume_per_cubed_perimeter(glue_ellipses(best_ratio)) == pytest.approx(0.003718329065, rel=1e-10)


def test_the_body_is_as_long_as_wide_at_one_ratio():
    ratio = brentq(lambda ratio: glue_ellipses(ratio).extent - 2, 2.3, 2.5, xtol=1e-13)
    assert ratio == pytest.approx(2.3894586981, rel=1e-10)


def test_bending_along_the_short_axis_is_impossible():
    bag = glue(ellipse(1, 2), ellipse(1, 2))
    assert not bag.is_glueable
    assert bag.deficit.min() == pytest.approx(-0.759578415896, rel=1e-11)  # in the middle of the octant
    message = r"ellipse\(1, 2\) .* cannot be glued: D .* got -0.759578 at arc length 1.21106 of 2.42211"
    for attempt in ("seam", "extent", "volume", "efficiency"):
        with pytest.raises(ValueError, match=message):
            getattr(bag, attempt)
    for attempt in (bag.mesh, bag.template, lambda: bag.seam_at(0.0)):
        with pytest.raises(ValueError, match=message):
            attempt()


@pytest.mark.parametrize("exponent", [1.1, 1.5, 4])
def test_square_symmetry_leaves_no_deficit(exponent):
    # h'(s)^2 + h'(l - s)^2 = 1: the gluing is the flat sheet, doubly covered.
    outline = superellipse(1, 1, exponent)
    bag = glue(outline, outline)
    assert bag.is_glueable
    assert bag.volume == pytest.approx(0, abs=1e-12)


def test_unequal_perimeters_are_refused_with_both():
    with pytest.raises(
        ValueError, match=r"second must be of the perimeter of .* 9\.688448\d+, not 13\.36489"
    ):
        glue(ellipse(2, 1), ellipse(3, 1))
    glue(ellipse(2, 1), ellipse(2, 1).scaled(1 + 1e-10))
    with pytest.raises(ValueError, match="second must be"):
        glue(ellipse(2, 1), ellipse(2, 1).scaled(1 + 2e-9))


@pytest.mark.parametrize("count", [0, 1.5, float("nan")])
def test_mesh_refuses_a_bad_count(count):
    with pytest.raises(ValueError, match="count must be a whole number of at least 1"):
        glue_ellipses(2).mesh(count)
