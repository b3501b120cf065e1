import numpy as np
import pytest
from scipy.special import ellipe, gamma

from kexue_lib.mathematics.outline import ellipse, from_support, superellipse


@pytest.mark.parametrize(
    ("ratio", "expected"),
    # Golden values: mpmath, the complete elliptic integral a E(1 - b^2/a^2).
    [(1.2, 1.73144779895242), (2, 2.42211205513692), (5, 5.25251113492225), (10, 10.15993545025224)],
)
def test_quarter_of_an_ellipse(ratio, expected):
    quarter = ellipse(ratio, 1).quarter_length
    assert quarter == pytest.approx(expected, rel=1e-13)
    assert quarter == pytest.approx(ratio * ellipe(1 - ratio**-2), rel=1e-14)


@pytest.mark.parametrize("exponent", [1.01, 1.1, 1.5, 2, 2.5, 4, 20, 50])
def test_area_of_a_superellipse(exponent):
    exact = 4 * 2 * 1.5 * gamma(1 + 1 / exponent) ** 2 / gamma(1 + 2 / exponent)
    assert superellipse(2, 1.5, exponent).area == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("exponent", [1.3, 1.5, 3.7])
def test_quarter_of_a_superellipse_against_small_chords(exponent):
    # Chords fall short of the arc by O(1/n^2); two counts extrapolate. Steps in u keep the ends smooth.
    sheet = superellipse(2, 1, exponent)

    def chords(count):
        angle = np.pi / 2 * np.linspace(0, 1, count + 1) ** 3 * (2 - np.linspace(0, 1, count + 1) ** 3)
        return np.linalg.norm(
            np.diff(np.stack(sheet.point(np.cos(angle), np.sin(angle))), axis=1), axis=0
        ).sum()

    extrapolated = (4 * chords(20000) - chords(10000)) / 3
    assert sheet.quarter_length == pytest.approx(extrapolated, rel=1e-8)


@pytest.mark.parametrize("sheet", [ellipse(2, 1), superellipse(2, 1, 1.5), from_support([1, 0.2, 0.01])])
def test_velocity_is_the_derivative_of_the_point(sheet):
    angle, step = np.linspace(0.1, 1.4, 7), 1e-5
    ahead = np.stack(sheet.point(np.cos(angle + step), np.sin(angle + step)))
    behind = np.stack(sheet.point(np.cos(angle - step), np.sin(angle - step)))
    velocity = np.stack(sheet.velocity(np.cos(angle), np.sin(angle)))
    np.testing.assert_allclose((ahead - behind) / (2 * step), velocity, atol=1e-8)


@pytest.mark.parametrize("sheet", [ellipse(3, 1), superellipse(2, 1, 1.5), from_support([1, 0.2])])
def test_half_width_and_its_slope(sheet):
    arc_length = np.linspace(0, sheet.quarter_length, 9)
    half_width = sheet.half_width(arc_length)
    assert half_width[0] == pytest.approx(0, abs=1e-12)
    assert half_width[-1] == pytest.approx(sheet.perimeter_point(sheet.quarter_length)[1], rel=1e-14)
    inner, step = arc_length[1:-1], 1e-5
    slope = (sheet.half_width(inner + step) - sheet.half_width(inner - step)) / (2 * step)
    np.testing.assert_allclose(slope, np.cos(sheet.normal_angle(inner)), atol=1e-8)


def test_half_width_of_a_circle_is_a_sine():
    arc_length = np.linspace(0, np.pi / 2, 50).reshape(5, 10)
    np.testing.assert_allclose(ellipse(1, 1).half_width(arc_length), np.sin(arc_length), atol=1e-14)


def test_superellipse_with_exponent_two_is_the_ellipse():
    angle = np.linspace(0, np.pi / 2, 11)
    expected = 2 * np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(
        superellipse(2, 1, 2).point(np.cos(angle), np.sin(angle)), expected, atol=1e-15
    )


def test_support_function_of_an_ellipse_gives_the_ellipse():
    # p(phi) = sqrt(a^2 cos^2 + b^2 sin^2), expanded in cos(2 k phi) by the trapezoidal rule.
    angle = np.arange(256) * np.pi / 256
    support = np.sqrt(4 * np.cos(angle) ** 2 + np.sin(angle) ** 2)
    coefficients = [2 * np.mean(support * np.cos(2 * k * angle)) for k in range(40)]
    coefficients[0] /= 2
    outline, exact = from_support(coefficients), ellipse(2, 1)
    assert outline.quarter_length == pytest.approx(exact.quarter_length, rel=1e-14)
    assert outline.area == pytest.approx(exact.area, rel=1e-13)
    arc_length = np.linspace(0, exact.quarter_length, 20)
    np.testing.assert_allclose(outline.half_width(arc_length), exact.half_width(arc_length), atol=1e-12)


def test_support_function_gives_perimeter_and_area():
    coefficients = np.array([1.0, 0.2, -0.01])
    outline = from_support(coefficients)
    assert 4 * outline.quarter_length == pytest.approx(2 * np.pi, rel=1e-14)
    # Half the integral of p (p + p'') over the circle.
    area = np.pi + np.pi / 2 * np.sum(((1 - 4 * np.arange(3) ** 2) * coefficients**2)[1:])
    assert outline.area == pytest.approx(area, rel=1e-13)


@pytest.mark.parametrize(
    # The radius of curvature is 1 - 3 c_1 cos 2 phi - 15 c_2 cos 4 phi: smallest at an end, then between.
    ("convex", "not_convex"),
    [([1, 0.3333], [1, 0.3334]), ([1, -0.3333], [1, -0.3334]), ([1, 0, -0.0666], [1, 0, -0.0667])],
)
def test_from_support_draws_the_line_at_convexity(convex, not_convex):
    from_support(convex)
    with pytest.raises(ValueError, match=r"coefficients must be such that p \+ p'' > 0"):
        from_support(not_convex)


def test_perimeter_point_walks_all_four_quarters():
    sheet = ellipse(2, 1)
    corners = sheet.perimeter_point(sheet.quarter_length * np.arange(-1, 5))
    expected = [[0, -1], [2, 0], [0, 1], [-2, 0], [0, -1], [2, 0]]
    np.testing.assert_allclose(corners, expected, atol=1e-12)
    middles = sheet.perimeter_point(sheet.quarter_length * (0.5 + np.arange(4)))
    np.testing.assert_array_equal(np.sign(middles), [[1, 1], [-1, 1], [-1, -1], [1, -1]])


def test_scaled_outline():
    small, large = superellipse(2, 1, 3), superellipse(3, 1.5, 3)
    assert small.scaled(1.5).area == pytest.approx(large.area, rel=1e-14)
    assert small.scaled(1.5).quarter_length == pytest.approx(large.quarter_length, rel=1e-14)
    assert small.scaled(1.5).perimeter_point(0.0)[0] == pytest.approx(3, rel=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ellipse(0, 1), "a must be a finite number above 0, got 0"),
        (lambda: ellipse(1, float("nan")), "b must be a finite number above 0, got nan"),
        (lambda: superellipse(2, 1, 1), "exponent must be a finite number above 1, got 1"),
        (lambda: from_support([]), "coefficients must be a non-empty list of numbers"),
        (lambda: from_support([1, np.inf]), "coefficients must be finite"),
        (lambda: from_support([[1.0]]), "coefficients must be a non-empty list of numbers"),
        (lambda: from_support([1, 1 / 3]), "coefficients must be such that"),
        (lambda: ellipse(2, 1).half_width(-0.1), "arc_length must be within"),
        (lambda: ellipse(2, 1).perimeter_point(np.nan), "distance must be finite"),
        (lambda: from_support([-1.0]), "coefficients must be such that"),
        (lambda: ellipse(2, 1).scaled(-1), "factor must be a finite number above 0, got -1"),
        (lambda: ellipse(2, 1).half_width(3.0), r"arc_length must be within \[0, 2.42211\], got"),
        (lambda: ellipse(2, 1).half_width(np.nan), "arc_length must be within"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_outline_that_no_series_resolves_is_refused():
    with pytest.raises(ValueError, match="outline must be smooth"):
        _ = superellipse(2, 1, 1000).quarter_length
