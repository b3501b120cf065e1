import mpmath
import numpy as np
import pytest
from scipy.integrate import cumulative_simpson, quad, solve_ivp
from scipy.optimize import brentq
from scipy.special import jn_zeros

from kexue_lib.mathematics import rope

# Article 6784 with its multiplier restored, computed independently, for span 1.
TROPOSKIENS = [  # length, modulus, height, horizontal and end tension
    (1.05, 0.2188582388591763, 0.1445596477484013, 0.1038463950146836, 0.1142951408932545),
    (1.25, 0.4524206099562149, 0.3422738085778027, 0.1137999518303260, 0.1723756318495031),
    (1.5, 0.5878009835613423, 0.5157047090538416, 0.1259460651831369, 0.2589217386532906),
    (np.pi / 2, 0.6144799663470313, 0.5602108228048174, 0.1293323453098581, 0.2862504283036833),
    (2, 0.7239868281104243, 0.8114138298103434, 0.1494263682761908, 0.4786225698799352),
    (2.5, 0.7943952191604109, 1.084943612366245, 0.1720411797051330, 0.7605925007122913),
    (3, 0.8374529602688741, 1.349773201783751, 0.1939706681783914, 1.104914516305171),
]
ANGLES_AND_MOMENTS = [  # length, end angle in degrees, integral of r^2 along the rope
    (1.05, 24.69001113710, 0.01077566861548911),
    (1.25, 48.68595222324, 0.06777972532103530),
    (1.5, 60.89410841088, 0.1749576951978660),
    (np.pi / 2, 63.13978353198, 0.2135391840086891),
    (2, 71.80808651646, 0.5385458476557864),
    (2.5, 76.92692209774, 1.152960048050397),
    (3, 79.88917964953, 2.080515253824747),
]


@pytest.mark.parametrize(("length", "modulus", "height", "horizontal", "end"), TROPOSKIENS)
def test_troposkien_has_the_golden_values(length, modulus, height, horizontal, end):
    shape = rope.troposkien(length)
    assert (shape.length, shape.span) == (length, 1)
    assert shape.modulus == pytest.approx(modulus, rel=1e-14)
    assert shape.complementary_modulus == pytest.approx(np.sqrt(1 - modulus**2), rel=1e-14)
    assert shape.height == pytest.approx(height, rel=3e-15)
    assert shape.horizontal_tension == pytest.approx(horizontal, rel=3e-15)
    assert shape.end_tension == pytest.approx(end, rel=3e-15)


@pytest.mark.parametrize(("length", "degrees", "moment"), ANGLES_AND_MOMENTS)
def test_troposkien_has_the_golden_end_angle_and_moment(length, degrees, moment):
    shape = rope.troposkien(length)
    cosine = shape.horizontal_tension / shape.end_tension
    assert np.degrees(np.arccos(cosine)) == pytest.approx(degrees, rel=1e-12)
    assert second_moment(shape) == pytest.approx(moment, rel=1e-12)


def test_profile_has_the_golden_values():
    expected = [0, 0.293839522206, 0.533437608441, 0.695219406669, 0.783756825385, 0.811413829810]
    shape = rope.troposkien(2.0)
    np.testing.assert_allclose(shape.profile(np.linspace(0, 0.5, 6)), expected, atol=1e-12)
    np.testing.assert_array_equal(shape.profile([0.75, 1]), shape.profile([0.25, 0]))


@pytest.mark.parametrize("length", [1 + 1e-9, 1.001, 1.5, 4, 50, 1e6])
def test_modulus_satisfies_the_length_equation_from_taut_to_very_long(length):
    shape = rope.troposkien(length)
    with mpmath.workdps(50):
        squared = mpmath.mpf(shape.modulus) ** 2
        complement = mpmath.mpf(shape.complementary_modulus) ** 2
        assert squared + complement == pytest.approx(1, abs=1e-15)
        # Whichever of the two is small carries the digits.
        parameter = squared if squared < complement else 1 - complement
        k, e = mpmath.ellipk(parameter), mpmath.ellipe(parameter)
        slack = 2 * e / ((1 - parameter) * k) - 2
        assert float(slack) == pytest.approx(length - 1, rel=2e-14)
        assert float(mpmath.sqrt(parameter) / ((1 - parameter) * k)) == pytest.approx(shape.height, rel=1e-13)


def test_barely_taut_rope_is_the_beginning_of_its_series():
    shape = rope.troposkien(1 + 1e-9)
    slack = (1 + 1e-9) - 1
    assert shape.modulus == pytest.approx(np.sqrt(slack - 7 / 8 * slack**2), rel=1e-14)
    assert shape.height == pytest.approx(2 / np.pi * shape.modulus * (1 + 3 / 4 * slack), rel=1e-14)
    assert shape.profile(0.25) == pytest.approx(shape.height * np.sin(np.pi / 4), rel=1e-8)


@pytest.mark.parametrize("length", [1.05, 2.0, 10.0])
def test_rope_equation_integrated_from_one_end_arrives_at_the_other(length):
    shape = rope.troposkien(length)

    def derivative(arc, state):
        radius, _, radial_pull = state  # (T r')' = -r and T z' = H, in units of density and frequency
        tension = shape.end_tension - radius**2 / 2
        return [radial_pull / tension, shape.horizontal_tension / tension, -radius]

    start = [0, 0, np.sqrt(shape.end_tension**2 - shape.horizontal_tension**2)]
    arcs = np.linspace(0, length, 21)
    solution = solve_ivp(derivative, (0, length), start, "DOP853", arcs, rtol=1e-13, atol=1e-14)
    radius, z, radial_pull = solution.y
    assert radius[-1] == pytest.approx(0, abs=1e-11)
    assert z[-1] == pytest.approx(1, rel=1e-11)
    assert radius[10] == pytest.approx(shape.height, rel=1e-11)
    np.testing.assert_allclose(radius[:11], shape.profile(z[:11]), atol=1e-10)
    # The tension formula is the integral of motion that the pulls alone must obey.
    tension = shape.end_tension - radius**2 / 2
    np.testing.assert_allclose(np.hypot(radial_pull, shape.horizontal_tension), tension, rtol=1e-10)


@pytest.mark.parametrize("length", [1.2, 2.0, 6.0])
def test_profile_has_the_length_of_the_rope(length):
    shape = rope.troposkien(length)
    z = (1 - np.cos(np.linspace(0, np.pi, 20_001))) / 2
    measured = np.sum(np.hypot(np.diff(z), np.diff(shape.profile(z))))
    assert measured == pytest.approx(length, rel=1e-7)


def test_troposkien_scales_with_its_span():
    small, large = rope.troposkien(2.0), rope.troposkien(6.0, span=3.0)
    assert large.modulus == pytest.approx(small.modulus, rel=1e-15)
    assert large.height == pytest.approx(3 * small.height, rel=1e-15)
    assert large.horizontal_tension == pytest.approx(9 * small.horizontal_tension, rel=1e-15)
    assert large.end_tension == pytest.approx(9 * small.end_tension, rel=1e-15)
    np.testing.assert_allclose(large.profile([0.3, 2.4]), 3 * small.profile([0.1, 0.8]), rtol=1e-14)


def test_profile_keeps_shapes_and_returns_floats_for_scalars():
    shape = rope.troposkien(2.0)
    assert type(shape.profile(0.5)) is float
    assert shape.profile(0.5) == shape.height
    assert shape.profile(np.full((2, 3), 0.5)).shape == (2, 3)


def test_troposkien_beats_other_curves_of_equal_length_and_span():
    shape = rope.troposkien(2.0)
    parabola_height, parabola = moment_of_rival(lambda z: 4 * z * (1 - z), lambda z: 4 - 8 * z)
    sine_height, sine = moment_of_rival(lambda z: np.sin(np.pi * z), lambda z: np.pi * np.cos(np.pi * z))
    assert parabola == pytest.approx(0.538277489739, rel=1e-11)
    assert sine == pytest.approx(0.536623322415, rel=1e-11)
    assert parabola_height == pytest.approx(0.817300578, rel=1e-9)
    assert sine_height == pytest.approx(0.827790615, rel=1e-9)
    assert sine < parabola < second_moment(shape)
    assert np.pi / 16 < second_moment(rope.troposkien(np.pi / 2))  # the semicircle


def second_moment(shape):
    """Integrate r^2 along the rope, with ds/dz = T/H."""

    def integrand(z):
        radius = shape.profile(z)
        return radius**2 * (shape.end_tension - radius**2 / 2) / shape.horizontal_tension

    return quad(integrand, 0, 1, points=[0.5], epsabs=0, epsrel=1e-13)[0]


def moment_of_rival(radius, slope, length=2.0):
    """Scale a curve to the given length; return the scale and the integral of r^2 along it."""

    def along(height, integrand):
        return quad(
            lambda z: integrand(z) * np.hypot(1, height * slope(z)), 0, 1, points=[0.5], epsrel=1e-12
        )[0]

    height = brentq(lambda height: along(height, lambda z: 1.0) - length, 0, length, xtol=1e-14)
    return height, along(height, lambda z: (height * radius(z)) ** 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5,), "length must be longer than the span 1, got 0.5"),
        ((1.0,), "length must be longer than the span 1, got 1.0"),
        ((2.0, 3), "length must be longer than the span 3, got 2.0"),
        ((np.nan,), "length must be a finite number above 0, got nan"),
        ((np.inf,), "length must be a finite number above 0, got inf"),
        ((2.0, 0), "span must be a finite number above 0, got 0"),
        ((2.0, np.nan), "span must be a finite number above 0, got nan"),
    ],
)
def test_troposkien_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        rope.troposkien(*arguments)


@pytest.mark.parametrize(("bad", "shown"), [(-0.1, "-0.1"), ([0.5, 1.1], "1.1"), (np.nan, "nan")])
def test_profile_refuses_places_outside_the_span(bad, shown):
    with pytest.raises(ValueError, match=rf"^z must be between 0 and the span 1, got {shown}$"):
        rope.troposkien(2.0).profile(bad)


@pytest.mark.parametrize(
    ("angular_velocity", "tip_radius", "drop", "clamp_tension"),
    [  # Computed independently by shooting from the tip; good to about 1e-11.
        (1, 0.22208488062745, 0.99975604550800, 9.80227009308),
        (2, 0.31552997958799, 0.99327970755767, 9.85325947010),
        (3, 0.61770084579770, 0.90729948286692, 10.4285294391),
        (5, 1.10812150040468, 0.41459761768265, 18.9122223990),
        (8, 1.18602874391926, 0.16463256710286, 45.3466529625),
        (12, 1.19724252749565, 0.07332569935946, 101.042648068),
    ],
)
def test_hanging_rope_has_the_golden_values(angular_velocity, tip_radius, drop, clamp_tension):
    shape = rope.hanging(0.2, 1.0, angular_velocity)[-1]
    assert shape.tip_radius == pytest.approx(tip_radius, rel=1e-11)
    assert shape.drop == pytest.approx(drop, rel=3e-11)
    assert shape.clamp_tension == pytest.approx(clamp_tension, rel=1e-11)


@pytest.mark.parametrize(
    ("angular_velocity", "branch", "tip_radius", "drop", "clamp_tension"),
    [  # Power series of 30 terms, continued in small steps with mpmath, 25 digits.
        (1, 0, 0.22208488062700795, 0.99975604550801472, 9.80227009308010041),
        (3, 0, 0.61770084579349832, 0.90729948286875797, 10.42852943913684251),
        (8, 1, -0.34653998377390383, 0.74459174837679794, 9.85987786542118075),
        (8, 2, 1.18602874391879020, 0.16463256710429605, 45.34665296247276401),
    ],
)
def test_hanging_rope_agrees_with_power_series(angular_velocity, branch, tip_radius, drop, clamp_tension):
    shape = rope.hanging(0.2, 1.0, angular_velocity)[branch]
    assert shape.tip_radius == pytest.approx(tip_radius, rel=3e-13)
    assert shape.drop == pytest.approx(drop, rel=3e-13)
    assert shape.clamp_tension == pytest.approx(clamp_tension, rel=3e-13)


@pytest.mark.parametrize(
    ("angular_velocity", "expected"),
    [
        (0, []),
        (1.1, []),
        (1.25, [0.3897234262]),
        (1.5, [0.774281769]),
        (2, [0.9351530712]),
        (3, [0.1497343776, 0.9875678368]),
        (4, [0.2673745602, 0.9960851708]),
        (5, [0.1018944356, 0.3015545784, 0.9983985642]),
    ],
)
def test_rope_on_the_axis_has_the_golden_tip_radii(angular_velocity, expected):
    shapes = rope.hanging(0, 1, angular_velocity, gravity=1)
    assert [shape.tip_radius for shape in shapes] == pytest.approx([0, *expected], abs=1e-9)
    straight = shapes[0]
    assert (straight.tip_radius, straight.clamp_tension) == (0, 1)
    assert straight.drop == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("mode", [1, 2, 3, 5])
def test_one_more_shape_appears_at_each_bessel_threshold(mode):
    threshold = jn_zeros(0, mode)[-1] / 2
    for below in (1e-9, 1e-11, 1e-12, 0):
        assert len(rope.hanging(0, 1, threshold * (1 - below), gravity=1)) == mode
    assert len(rope.hanging(0, 1, threshold * (1 + 1e-9), gravity=1)) == mode + 1


@pytest.mark.parametrize("angular_velocity", [1.1, 3.0, 5.0])
def test_a_clamp_very_near_the_axis_has_both_mirror_images(angular_velocity):
    on_axis = [shape.tip_radius for shape in rope.hanging(0, 1, angular_velocity, gravity=1)]
    near_axis = [shape.tip_radius for shape in rope.hanging(1e-9, 1, angular_velocity, gravity=1)]
    mirrored = [-tip for tip in on_axis[:0:-1]] + on_axis
    assert near_axis == pytest.approx(mirrored, abs=1e-7)


@pytest.mark.parametrize(("radius", "angular_velocity"), [(0.2, 8), (0.2, 3), (0, 12), (3, 5), (0.01, 15)])
def test_every_shape_balances_the_forces_along_the_rope(radius, angular_velocity):
    gravity, length = 9.8, 1.0
    for shape in rope.hanging(radius, length, angular_velocity, gravity):
        arc, x, depth, tension = shape.curve(8001)
        # The pull along the radius carries the inertia of the rope below, the vertical one its weight.
        carried = cumulative_simpson(x[::-1], dx=arc[1], initial=0)[::-1]
        radial_pull, vertical_pull = angular_velocity**2 * carried, gravity * (length - arc)
        np.testing.assert_allclose(tension, np.hypot(radial_pull, vertical_pull), rtol=1e-8, atol=1e-9)
        inner = slice(0, -1)  # at the tip the direction of the pull is 0 / 0
        slope, fall = radial_pull[inner] / tension[inner], vertical_pull[inner] / tension[inner]
        np.testing.assert_allclose(
            radius + cumulative_simpson(slope, dx=arc[1], initial=0), x[inner], atol=1e-8
        )
        np.testing.assert_allclose(cumulative_simpson(fall, dx=arc[1], initial=0), depth[inner], atol=1e-8)


def test_curve_runs_from_the_clamp_to_the_tip_and_obeys_the_tension_formula():
    for shape in rope.hanging(0.2, 1.0, 8.0):
        curve = shape.curve(3001)
        assert all(values.shape == (3001,) for values in curve)
        assert curve.radius[0] == pytest.approx(0.2, abs=1e-12)
        assert curve.radius[-1] == pytest.approx(shape.tip_radius, rel=1e-14)
        assert (curve.depth[0], curve.tension[-1]) == (0, 0)
        assert curve.depth[-1] == pytest.approx(shape.drop, rel=1e-12)
        assert curve.tension[0] == pytest.approx(shape.clamp_tension, rel=1e-11)
        centrifugal = 8.0**2 * (curve.radius**2 - 0.2**2) / 2
        expected = shape.clamp_tension - centrifugal - 9.8 * curve.depth
        np.testing.assert_allclose(curve.tension, expected, atol=1e-10)
        measured = np.sum(np.hypot(np.diff(curve.radius), np.diff(curve.depth)))
        assert measured == pytest.approx(1, rel=1e-6)


def test_curve_with_points_inside_the_first_step_joins_smoothly():
    curve = rope.hanging(0, 1, 3, gravity=1)[1].curve(400_001)
    curvature = np.diff(curve.radius[-200:], 2) / curve.arc_length[1] ** 2
    assert np.ptp(curvature) < 0.05
    steepness = curve.tension[-200:-1] / (1 - curve.arc_length[-200:-1])
    assert np.ptp(np.diff(steepness, 2)) < 2e-12


def test_hanging_rope_scales_with_length_and_time():
    units = rope.hanging(0.2, 1, 3, gravity=1)
    scaled = rope.hanging(0.4, 2, 6, gravity=8)  # twice as long, twice as fast
    assert len(units) == len(scaled) == 3
    for unit, other in zip(units, scaled, strict=True):
        assert other.tip_radius == pytest.approx(2 * unit.tip_radius, rel=1e-12)
        assert other.drop == pytest.approx(2 * unit.drop, rel=1e-12)
        assert other.clamp_tension == pytest.approx(16 * unit.clamp_tension, rel=1e-12)
        np.testing.assert_allclose(other.curve(9).radius, 2 * unit.curve(9).radius, rtol=1e-10)
        np.testing.assert_allclose(other.curve(9).tension, 16 * unit.curve(9).tension, rtol=1e-10)


def test_two_shapes_that_are_about_to_merge_are_both_found():
    few, many = 0.5, 0.2  # radii of the clamp with one and with three shapes
    assert [len(rope.hanging(radius, 1.0, 8.0)) for radius in (few, many)] == [1, 3]
    while few - many > 1e-7:
        middle = (few + many) / 2
        few, many = (few, middle) if len(rope.hanging(middle, 1.0, 8.0)) == 3 else (middle, many)
    first, second, _ = rope.hanging(many, 1.0, 8.0)
    # They merge like a square root; signs on the scan alone, in steps of 0.03, would lose them before.
    assert 0 < second.tip_radius - first.tip_radius < 2e-3


def test_a_shape_that_falls_on_a_point_of_the_scan_is_found_once():
    step = 2.02 / (32 + int(4 * 4 * 2.02))  # of the scan at rotation 4, from radius - 1.01

    def distance_to_point(radius):
        return rope.hanging(radius, 1, 2, gravity=1)[-1].tip_radius - (radius - 1.01 + 62 * step)

    radius = brentq(distance_to_point, 0.01, 0.15, xtol=1e-13)
    for offset in (0, 1e-13, 1e-12, 1e-11, -1e-13, -1e-12, -1e-11):
        assert len(rope.hanging(radius + offset, 1, 2, gravity=1)) == 3


@pytest.mark.parametrize("radius", [3.3, 1e6, 3.3e7, 1.1e8, 7.7e9])
def test_a_clamp_far_from_the_axis_has_one_shape(radius):
    (shape,) = rope.hanging(radius, 1.0, 2.0)
    assert radius < shape.tip_radius <= (radius + 1) * (1 + 1e-15)


def test_without_rotation_the_rope_hangs_straight():
    (shape,) = rope.hanging(0.3, 2.0, 0)
    assert shape.tip_radius == pytest.approx(0.3, rel=1e-14)
    assert shape.drop == pytest.approx(2, rel=1e-14)
    assert shape.clamp_tension == pytest.approx(2 * 9.8, rel=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 1, 1), "radius must be a finite number of at least 0, got -0.1"),
        ((np.nan, 1, 1), "radius must be a finite number of at least 0, got nan"),
        ((0.2, 0, 1), "length must be a finite number above 0, got 0"),
        ((0.2, np.nan, 1), "length must be a finite number above 0, got nan"),
        ((0.2, 1, -1), "angular_velocity must be a finite number of at least 0, got -1"),
        ((0.2, 1, np.inf), "angular_velocity must be a finite number of at least 0, got inf"),
        ((0.2, 1, 32, 1), "angular_velocity must be at most 31.6228 here, got 32.0"),
        ((0.2, 1, 1e200), "angular_velocity must be at most 98.9949 here, got 1e\\+200"),
        ((0.2, 1, 1, 0), "gravity must be a finite number above 0, got 0"),
    ],
)
def test_hanging_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        rope.hanging(*arguments)


def test_curve_needs_two_points():
    with pytest.raises(ValueError, match=r"^count must be a whole number of at least 2, got 1$"):
        rope.hanging(0.2, 1, 1)[0].curve(1)
