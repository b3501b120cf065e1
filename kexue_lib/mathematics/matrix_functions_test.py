import numpy as np
import pytest
import scipy.linalg

from kexue_lib.mathematics.matrix_functions import expm_series, hutchinson_trace, logdet_series, logm_series

ONE_TO_FOUR = np.array([[1.0, 2.0], [3.0, 4.0]])
SHEARED = np.array([[0.5, 3.0], [0.0, -0.4]])  # spectral radius 0.5, norm 3.07
FIVE = np.array([[((3 * i + 5 * j + i * j) % 7 - 3) / 4 for j in range(5)] for i in range(5)])


def random_matrices(shape, *, complex_valued=False):
    generator = np.random.default_rng(0)
    real = generator.normal(size=shape)
    return real + 1j * generator.normal(size=shape) if complex_valued else real


def test_exponential_golden_values():
    # mpmath.expm with 30 digits.
    expected = [[51.9689561987050037, 74.7365645670032125], [112.104846850504819, 164.073803049209822]]
    np.testing.assert_allclose(expm_series(ONE_TO_FOUR, 40), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("matrix", "determinant"),
    [
        (ONE_TO_FOUR, 148.41315910257660342),
        ([[2, 1, 0], [0, 2, 1], [0, 0, 2]], 403.428793492735123),
        ([[1, 0], [1, 0]], 2.71828182845904524),
        (np.pi / 3 * np.array([[0, -1], [1, 0]]), 1),
        ([[0, 1], [0, 0]], 1),
        (FIVE, 2.7182818284590452354),
    ],
)
def test_determinant_of_the_exponential(matrix, determinant):
    exponential = expm_series(matrix, 60)
    assert np.linalg.det(exponential) == pytest.approx(determinant, rel=1e-11)


def test_exponentials_that_do_not_multiply():
    A, B = np.array([[0, 1], [0, 0]]), np.array([[0, 0], [1, 0]])
    together, apart = expm_series(A + B, 30), expm_series(A, 30) @ expm_series(B, 30)
    np.testing.assert_allclose(together, [[np.cosh(1), np.sinh(1)], [np.sinh(1), np.cosh(1)]], rtol=1e-14)
    np.testing.assert_allclose(apart, [[2, 1], [1, 1]], rtol=1e-14)
    assert np.linalg.norm(together - apart) == pytest.approx(0.7517331964870211, rel=1e-13)
    errors = [
        np.linalg.norm(together - np.linalg.matrix_power(expm_series(A / n, 30) @ expm_series(B / n, 30), n))
        for n in (10, 100, 1000)
    ]
    np.testing.assert_allclose(errors, [0.08300665717, 0.008309834557, 0.0008309926405], rtol=1e-9)


def test_complex_pair_that_does_not_commute_but_multiplies():
    A, B = np.diag([0, 2j * np.pi]), np.array([[0, 1], [0, 2j * np.pi]])
    assert np.linalg.norm(A @ B - B @ A) == pytest.approx(2 * np.pi)
    apart = expm_series(A, 80) @ expm_series(B, 80)
    np.testing.assert_allclose(expm_series(A + B, 100), apart, atol=1e-10)


@pytest.mark.parametrize("complex_valued", [False, True])
def test_batches_agree_with_scipy(complex_valued):
    matrices = random_matrices((2, 3, 4, 4), complex_valued=complex_valued)
    np.testing.assert_allclose(expm_series(matrices, 60), scipy.linalg.expm(matrices), rtol=1e-11, atol=1e-11)
    small = matrices / 20
    logarithms = logm_series(small, 60)
    assert logarithms.shape == matrices.shape
    for index in np.ndindex(2, 3):
        expected = scipy.linalg.logm(np.eye(4) + small[index])
        np.testing.assert_allclose(logarithms[index], expected, atol=1e-14)
    np.testing.assert_allclose(logdet_series(small, 60).value, np.trace(logarithms, axis1=-2, axis2=-1))


def test_terms_are_counted_from_the_first():
    np.testing.assert_array_equal(expm_series(ONE_TO_FOUR, 1), np.eye(2))
    np.testing.assert_array_equal(
        expm_series(ONE_TO_FOUR, 3), np.eye(2) + ONE_TO_FOUR + [[3.5, 5], [7.5, 11]]
    )
    np.testing.assert_array_equal(logm_series(ONE_TO_FOUR, 1), ONE_TO_FOUR)
    np.testing.assert_array_equal(logm_series(ONE_TO_FOUR, 2), ONE_TO_FOUR - [[3.5, 5], [7.5, 11]])


def test_arguments_are_left_alone():
    matrix = ONE_TO_FOUR.copy()
    for function in (expm_series, logm_series):
        function(matrix, 5)
        function(matrix, 1)[:] = 0
    np.testing.assert_array_equal(matrix, ONE_TO_FOUR)


def test_nilpotent_matrix_of_norm_100_ends_the_series():
    nilpotent = np.array([[0.0, 100.0], [0.0, 0.0]])
    np.testing.assert_array_equal(logm_series(nilpotent, 200), nilpotent)
    np.testing.assert_array_equal(expm_series(nilpotent, 200), np.eye(2) + nilpotent)


def test_spectral_radius_decides_not_the_norm():
    assert np.linalg.norm(SHEARED, 2) == pytest.approx(3.0668790783, rel=1e-10)
    expected = [[0.4054651081081643, 3.0543024395805163], [0, -0.5108256237659908]]
    np.testing.assert_allclose(logm_series(SHEARED, 60), expected, rtol=1e-13)
    value, standard_error = logdet_series(SHEARED, 60)
    assert value == pytest.approx(-0.1053605156578266, rel=1e-13)
    assert standard_error == 0
    growing = [np.linalg.norm(logm_series(np.diag([1.1, 0.5]), terms)) for terms in (50, 100, 200)]
    assert growing == sorted(growing)
    assert growing[-1] > 1e4


def test_logdet_by_truncated_traces():
    values = [logdet_series(0.3 * FIVE, terms).value for terms in (1, 2, 4, 8, 16, 32)]
    expected = [0.3, 0.2325, 0.22017421875, 0.22115283554, 0.22116221131, 0.22116221476265582]
    np.testing.assert_allclose(values, expected, rtol=0, atol=5e-12)
    assert values[-1] == pytest.approx(np.linalg.slogdet(np.eye(5) + 0.3 * FIVE)[1], abs=1e-14)


def test_logdet_from_products_alone():
    exact = logdet_series(0.3 * FIVE, 7)
    by_columns = logdet_series(lambda vector: 0.3 * FIVE @ vector, 7, dimension=5)
    assert by_columns.value == pytest.approx(exact.value, rel=1e-14)
    assert by_columns.standard_error == 0
    drawn = logdet_series(0.3 * FIVE, 7, probes=4000, seed=1)
    assert drawn == logdet_series(lambda vector: 0.3 * FIVE @ vector, 7, dimension=5, probes=4000, seed=1)
    assert drawn.value != logdet_series(0.3 * FIVE, 7, probes=4000, seed=2).value
    assert 0 < drawn.standard_error < 0.02
    assert abs(drawn.value - exact.value) < 4 * drawn.standard_error


def test_logdet_of_a_complex_operator():
    value, _ = logdet_series(lambda vector: 0.5j * vector, 60, dimension=2)
    assert value == pytest.approx(2 * np.log(1 + 0.5j), rel=1e-14)


def test_logdet_of_a_complex_matrix():
    matrix = random_matrices((4, 4), complex_valued=True) / 20
    exact = np.log(np.linalg.det(np.eye(4) + matrix))
    assert logdet_series(matrix, 60).value == pytest.approx(exact, rel=1e-12)
    drawn = logdet_series(matrix, 60, probes=2000)
    assert abs(drawn.value - exact) < 4 * drawn.standard_error


@pytest.mark.parametrize("diagonal", [np.array([1.0, -2.0, 7.5]), np.array([1.0, 2j, 3.0])])
def test_hutchinson_is_exact_for_a_diagonal(diagonal):
    value, standard_error = hutchinson_trace(lambda vector: diagonal * vector, 3, probes=3, seed=5)
    assert value == diagonal.sum()
    assert standard_error == 0


def test_hutchinson_is_unbiased_with_the_known_variance():
    square = random_matrices((6, 6))
    symmetric = (square + square.T) / 2
    variance = 2 * (np.sum(symmetric**2) - np.sum(np.diag(symmetric) ** 2))
    probes = 20000
    for matrix in (symmetric, square):  # the antisymmetric part adds nothing
        estimate = hutchinson_trace(lambda vector, m=matrix: m @ vector, 6, probes, seed=3)
        assert abs(estimate.value - np.trace(matrix)) < 4 * np.sqrt(variance / probes)
        assert estimate.standard_error == pytest.approx(np.sqrt(variance / probes), rel=0.03)


def test_standard_error_covers_the_truth():
    matrix = random_matrices((5, 5))
    estimates = [hutchinson_trace(lambda v: matrix @ v, 5, probes=30, seed=seed) for seed in range(400)]
    scores = [(value - np.trace(matrix)) / error for value, error in estimates]
    assert np.std(scores) == pytest.approx(1, abs=0.12)
    assert len({value for value, _ in estimates}) > 390
    assert estimates[7] == hutchinson_trace(lambda v: matrix @ v, 5, probes=30, seed=7)


def test_two_probes_give_the_sample_standard_error():
    returned = iter([1.0, 4.0])
    estimate = hutchinson_trace(lambda vector: next(returned) * vector, 1, probes=2, seed=0)
    assert estimate == pytest.approx((2.5, 1.5), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expm_series(np.ones((2, 3)), 5), r"matrix must be square, of shape \(..., k, k\), got"),
        (lambda: logm_series([1.0, 2.0], 5), "matrix must be square"),
        (lambda: expm_series(np.ones((0, 0)), 5), "matrix must be square"),
        (lambda: expm_series([[np.nan]], 5), r"matrix must be finite, got \[\[nan\]\]"),
        (lambda: logm_series([[np.inf]], 5), "matrix must be finite"),
        (lambda: expm_series([["one"]], 5), "matrix must be numeric"),
        (lambda: expm_series(np.array([[object()]]), 5), "matrix must be numeric"),
        (lambda: hutchinson_trace(lambda v: [np.nan, 1.0], 2, 3, 0), "matvec must be .* finite numbers"),
        (lambda: hutchinson_trace(lambda v: ["a", "b"], 2, 3, 0), "matvec must be .* finite numbers"),
        (lambda: expm_series(ONE_TO_FOUR, 0), "terms must be a whole number of at least 1, got 0"),
        (lambda: logm_series(ONE_TO_FOUR, 2.5), "terms must be a whole number of at least 1, got 2.5"),
        (lambda: logdet_series(ONE_TO_FOUR, 0), "terms must be"),
        (lambda: logdet_series(np.ones((2, 3)), 5), "operator must be square"),
        (lambda: logdet_series(ONE_TO_FOUR, 5, dimension=2), "dimension must be left out"),
        (lambda: logdet_series(np.zeros((3, 2, 2)), 5, probes=4), "operator must be a single matrix"),
        (lambda: logdet_series(np.sin, 5), "dimension must be a whole number of at least 1, got None"),
        (lambda: logdet_series(np.sin, 0, dimension=2), "terms must be"),
        (lambda: logdet_series(np.sin, 5, dimension=2, probes=1), "probes must be"),
        (lambda: hutchinson_trace(np.sin, 0, 5, 0), "dimension must be"),
        (lambda: hutchinson_trace(np.sin, 2, 1, 0), "probes must be a whole number of at least 2, got 1"),
        (lambda: hutchinson_trace(np.sin, 2, 5, -1), "seed must be"),
        (lambda: hutchinson_trace(np.sum, 2, 5, 0), r"matvec must be a function that returns shape \(2,\)"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
