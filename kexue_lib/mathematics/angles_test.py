import numpy as np
import pytest
from scipy import integrate, stats

from kexue_lib.mathematics import angles

DIMENSIONS = [2, 3, 4, 5, 10, 100, 1000]

# The law of article 7076, computed independently with mpmath.
VARIANCES = {
    2: 0.8224670334241132,
    3: 0.4674011002723397,
    4: 0.3224670334241132,
    5: 0.2451788780501174,
    10: 0.1106614778685577,
    20: 0.05258316784084287,
    50: 0.02040533162861279,
    100: 0.01010066661334856,
    200: 0.005025083331666786,
    768: 0.001303780226057906,
    1000: 0.001001000666666133,
    4096: 0.0002442002393460517,
}
EXCESS_KURTOSES = {
    2: -1.2,
    3: -0.806249769954,
    4: -0.593762875598,
    5: -0.465596111475,
    10: -0.218723394248,
    100: -0.0201992729731,
    1000: -0.00200199932733,
    4096: -0.000488400449567,
}


@pytest.mark.parametrize(("dimension", "expected"), VARIANCES.items())
def test_variance_has_the_golden_values(dimension, expected):
    assert angles.variance(dimension) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("dimension", "expected"), EXCESS_KURTOSES.items())
def test_excess_kurtosis_has_the_golden_values(dimension, expected):
    assert angles.excess_kurtosis(dimension) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("angle", "dimension", "expected"),
    [
        (1.0, 3, 0.42073549240395),
        (1.0, 10, 0.29262081537512),
        (np.pi / 2, 10, 1.164104726615),
        (np.pi / 2, 100, 3.9594145850268),
        (np.pi / 2, 1000, 12.60619810258),
    ],
)
def test_pdf_has_the_golden_values(angle, dimension, expected):
    assert angles.pdf(angle, dimension) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("dimension", "degrees", "expected"),
    [
        (2, 30, 1 / 3),
        (3, 1, 0.0174524064373),
        (10, 5, 0.201128763221),
        (10, 30, 0.882693196986),
        (100, 10, 0.917549225831),
        (100, 30, 0.999999898255),
        (1000, 1, 0.418723776376),
        (1000, 5, 0.994207306819),
    ],
)
def test_cdf_has_the_golden_probability_of_being_near_a_right_angle(dimension, degrees, expected):
    low, high = angles.cdf(np.radians([90 - degrees, 90 + degrees]), dimension)
    assert high - low == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("cosine", "dimension", "expected"),
    [(0.3, 100, 0.00230396571269), (0.1, 768, 0.00551111581803), (0.1, 1000, 0.00153571384214)],
)
def test_cdf_has_the_golden_tails(cosine, dimension, expected):
    assert 2 * angles.cdf(np.arccos(cosine), dimension) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("angle", "dimension", "expected"),
    [
        # mpmath, 60 digits: cos(t) sin(t)^(n-1) 2F1(1, n/2; (n+1)/2; sin(t)^2) / ((n-1) B((n-1)/2, 1/2)).
        (0.01, 100, 3.9930107620172493e-200),
        (0.05, 200, 3.2396137120587803e-261),
        (0.5, 100, 1.1189970605770333e-33),
        (1.0, 1000, 3.0299960371885081e-77),
        (1.5, 10000, 7.101260346638688e-13),
    ],
)
def test_cdf_keeps_relative_accuracy_deep_in_the_tail(angle, dimension, expected):
    assert angles.cdf(angle, dimension) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_density_has_area_one_mean_right_angle_and_the_closed_form_moments(dimension):
    def moment(power):
        def integrand(angle):
            return (angle - np.pi / 2) ** power * angles.pdf(angle, dimension)

        return integrate.quad(integrand, 0, np.pi, points=[np.pi / 2], epsabs=1e-14, epsrel=1e-12)[0]

    assert moment(0) == pytest.approx(1, rel=1e-11)
    assert moment(1) == pytest.approx(0, abs=1e-13)
    assert moment(2) == pytest.approx(angles.variance(dimension), rel=1e-10)
    assert moment(4) / moment(2) ** 2 - 3 == pytest.approx(angles.excess_kurtosis(dimension), abs=1e-9)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_pdf_is_the_slope_of_cdf(dimension):
    middle = np.linspace(1.2, 1.9, 8)
    step = 1e-3 / np.sqrt(dimension)
    weights = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
    slope = sum(weight * angles.cdf(middle + k * step, dimension) for k, weight in weights.items()) / step
    np.testing.assert_allclose(slope, angles.pdf(middle, dimension), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_agrees_with_the_beta_law_of_scipy(dimension):
    angle = np.linspace(0.1, 3, 30)
    beta = stats.beta((dimension - 1) / 2, (dimension - 1) / 2)
    square = np.sin(angle / 2) ** 2
    close = {"rtol": 1e-11, "atol": 1e-300}  # below the smallest normal float no digits are promised
    np.testing.assert_allclose(angles.cdf(angle, dimension), beta.cdf(square), **close)
    np.testing.assert_allclose(angles.pdf(angle, dimension), beta.pdf(square) * np.sin(angle) / 2, **close)


@pytest.mark.parametrize("dimension", [*DIMENSIONS, 10**6, 10**9])
def test_law_is_exactly_symmetric(dimension):
    offset = np.linspace(0, 1.5, 20) / np.sqrt(dimension)
    assert angles.cdf(np.pi / 2, dimension) == 0.5
    assert angles.cdf([0, np.pi], dimension).tolist() == [0, 1]
    obtuse = np.pi / 2 + offset
    np.testing.assert_array_equal(angles.cdf(obtuse, dimension), 1 - angles.cdf(np.pi - obtuse, dimension))


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_quantile_inverts_cdf_from_the_deep_tail_to_the_centre(dimension):
    probability = np.array([1e-150, 1e-100, 1e-30, 1e-10, 1e-3, 0.2, 0.4999, 0.5, 0.6, 0.999])
    angle = angles.quantile(probability, dimension)
    np.testing.assert_allclose(angles.cdf(angle, dimension), probability, rtol=1e-12)
    np.testing.assert_allclose(angles.quantile(angles.cdf(angle, dimension), dimension), angle, rtol=1e-12)


def test_quantile_at_its_ends_and_centre():
    assert angles.quantile([0, 0.5, 1], 10).tolist() == [0, np.pi / 2, np.pi]
    assert angles.quantile(1e-100, 3) == pytest.approx(2e-50, rel=1e-14)  # cdf = sin(t/2)^2


def test_two_and_three_dimensions_are_elementary():
    angle = np.array([1e-9, 0.3, 1.0, 2.0, 3.1])
    np.testing.assert_allclose(angles.cdf(angle, 2), angle / np.pi, rtol=1e-14)
    np.testing.assert_allclose(angles.cdf(angle, 3), np.sin(angle / 2) ** 2, rtol=1e-14)
    np.testing.assert_allclose(angles.pdf(angle, 2), 1 / np.pi, rtol=1e-14)
    np.testing.assert_allclose(angles.pdf(angle, 4), 2 / np.pi * np.sin(angle) ** 2, rtol=1e-14)
    assert angles.pdf([0, np.pi], 2) == pytest.approx(1 / np.pi)


@pytest.mark.parametrize("dimension", [10**6, 10**9])
def test_millions_of_dimensions_neither_overflow_nor_lose_digits(dimension):
    # For large n, sqrt(n - 3/2) is the scale of the normal law up to terms of order 1/n^2.
    peak = np.sqrt((dimension - 1.5) / (2 * np.pi))
    assert angles.pdf(np.pi / 2, dimension) == pytest.approx(peak, rel=1e-11)
    deviation = 1 / np.sqrt(dimension)
    near_normal = stats.norm.cdf(-np.sqrt(dimension - 1.5) * deviation)
    assert angles.cdf(np.pi / 2 - deviation, dimension) == pytest.approx(near_normal, rel=2 / dimension)
    log_ratio = np.log(angles.pdf(np.pi / 2 - deviation, dimension) / peak)
    log_cosine = -(deviation**2) / 2 - deviation**4 / 12
    assert log_ratio == pytest.approx((dimension - 2) * log_cosine, rel=1e-10)
    assert angles.variance(dimension) == pytest.approx(1 / dimension + 1 / dimension**2, rel=1e-11)


@pytest.mark.parametrize("function", [angles.pdf, angles.cdf, angles.quantile])
def test_arrays_keep_their_shape_and_scalars_are_floats(function):
    assert type(function(0.5, 7)) is float
    assert type(function(np.float64(0.5), np.int64(7))) is float
    assert function([0.5], 7).shape == (1,)
    grid = np.full((2, 3), 0.5)
    assert function(grid, 7).shape == (2, 3)
    assert function(grid, 7)[1, 2] == function(0.5, 7)
    assert function([], 7).shape == (0,)


@pytest.mark.parametrize("dimension", [2, 3, 10, 100])
def test_sample_follows_the_law_within_four_standard_errors(dimension):
    count = 200_000
    drawn = angles.sample(count, dimension, seed=0)
    variance = angles.variance(dimension)
    spread_of_variance = variance * np.sqrt((2 + angles.excess_kurtosis(dimension)) / count)
    assert drawn.shape == (count,)
    assert abs(drawn.mean() - np.pi / 2) < 4 * np.sqrt(variance / count)
    assert abs(drawn.var() - variance) < 4 * spread_of_variance
    for probability in (0.01, 0.2, 0.9):
        below = np.mean(drawn <= angles.quantile(probability, dimension))
        assert abs(below - probability) < 4 * np.sqrt(probability * (1 - probability) / count)


def test_pairs_of_gaussian_vectors_follow_the_law_within_four_standard_errors():
    count = 100_000
    first, second = np.random.default_rng(0).standard_normal((2, count, 10))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    angle = np.arccos(np.sum(first * second, axis=1) / norms)
    for cut in (1.0, 1.3, 1.9):
        probability = angles.cdf(cut, 10)
        tolerance = 4 * np.sqrt(probability * (1 - probability) / count)
        assert abs(np.mean(angle <= cut) - probability) < tolerance


def test_same_seed_gives_the_same_sample():
    np.testing.assert_array_equal(angles.sample(9, 5, seed=3), angles.sample(9, 5, seed=3))
    assert not np.array_equal(angles.sample(9, 5, seed=3), angles.sample(9, 5, seed=4))


@pytest.mark.parametrize("dimension", [1, 2.5, np.nan, True, "3"])
@pytest.mark.parametrize(
    "call",
    [
        lambda n: angles.pdf(1.0, n),
        lambda n: angles.cdf(1.0, n),
        lambda n: angles.quantile(0.3, n),
        angles.variance,
        angles.excess_kurtosis,
        lambda n: angles.sample(3, n, 0),
    ],
)
def test_dimension_must_be_a_whole_number_of_at_least_two(call, dimension):
    message = rf"^dimension must be a whole number of at least 2, got {dimension!r}$"
    with pytest.raises(ValueError, match=message):
        call(dimension)


@pytest.mark.parametrize(("bad", "shown"), [(4, "4.0"), (-0.1, "-0.1"), (np.nan, "nan"), ([1, 3.2], "3.2")])
@pytest.mark.parametrize("function", [angles.pdf, angles.cdf])
def test_angle_must_lie_between_zero_and_pi(function, bad, shown):
    with pytest.raises(ValueError, match=rf"^angle must be between 0 and pi, got {shown}$"):
        function(bad, 3)


@pytest.mark.parametrize(("bad", "shown"), [(1.2, "1.2"), (-1e-9, "-1e-09"), ([[0.1], [np.nan]], "nan")])
def test_probability_must_lie_between_zero_and_one(bad, shown):
    with pytest.raises(ValueError, match=rf"^probability must be between 0 and 1, got {shown}$"):
        angles.quantile(bad, 3)


def test_sample_needs_a_whole_positive_count_and_a_seed():
    with pytest.raises(ValueError, match=r"^count must be a whole number of at least 1, got 0$"):
        angles.sample(0, 3, 0)
    with pytest.raises(ValueError, match=r"^seed must be a whole number of at least 0, got -1$"):
        angles.sample(1, 3, -1)
