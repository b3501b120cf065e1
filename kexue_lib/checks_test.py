"""Every helper must refuse false statements, tautologies and useless wrong variants."""

import gc
import math
import signal
import time

import numpy as np
import pytest
import sympy

from kexue_lib import checks
from kexue_lib.checks import CheckFailed, UselessCheck

x = sympy.Symbol("x", real=True)
n = sympy.Symbol("n", integer=True, positive=True)


class TestIdentity:
    def test_shows_one_line_with_the_source_of_both_sides(self, capsys):
        checks.identity((x + 1) ** 2, x**2 + 2 * x + 1, wrong=x**2 + x + 1)
        assert capsys.readouterr().out == "✓ (x + 1) ** 2 = x ** 2 + 2 * x + 1 · exact\n"

    def test_says_when_the_evidence_is_numerical(self, capsys):
        k = sympy.Symbol("k", positive=True)
        integral = sympy.Integral(sympy.exp(-(x**2)) * sympy.cos(2 * k * x) ** 3, (x, 0, 1))
        by_hand = (sympy.Integral(sympy.exp(-(x**2)) * (3 * sympy.cos(2 * k * x) + sympy.cos(6 * k * x)) / 4,
                                  (x, 0, 1)))  # fmt: skip
        previous, checks.SIMPLIFY_SECONDS = checks.SIMPLIFY_SECONDS, 0.05
        try:
            checks.identity(integral, by_hand, wrong=by_hand / 2)
        finally:
            checks.SIMPLIFY_SECONDS = previous
        assert "numerical, 35 digits at 8 random points" in capsys.readouterr().out

    def test_matrices_are_compared_entry_by_entry(self):
        rotation = sympy.Matrix([[sympy.cos(x), -sympy.sin(x)], [sympy.sin(x), sympy.cos(x)]])
        checks.identity(rotation * rotation.T, sympy.eye(2), wrong=rotation * rotation)

    def test_undefined_functions_are_decided_exactly(self):
        f = sympy.Function("f")
        checks.identity(sympy.diff(f(x) ** 2, x), 2 * f(x) * f(x).diff(x), wrong=2 * f(x))

    def test_false_statement_names_both_sides_and_a_counter_example(self):
        with pytest.raises(CheckFailed, match=r"(?s)the sides differ at x = .*lhs = sin.*rhs = "):
            checks.identity(sympy.sin(2 * x), sympy.sin(x) * sympy.cos(x), wrong=x)

    def test_true_only_to_many_digits_is_false(self):
        almost = sympy.exp(sympy.pi * sympy.sqrt(163))  # an integer to 30 digits, and yet none
        with pytest.raises(CheckFailed):
            checks.identity(almost, sympy.Integer(262537412640768744), wrong=sympy.Integer(1))

    z = sympy.Symbol("z")
    m = sympy.Symbol("m", imaginary=True)

    @pytest.mark.parametrize(
        ("lhs", "rhs"),
        [
            (sympy.sqrt(-z), -sympy.I * sympy.sqrt(z)),
            (sympy.log(-z), sympy.log(z) - sympy.I * sympy.pi),
            (sympy.sqrt(m**2), m),
            (sympy.arg(z), sympy.acos(sympy.re(z) / sympy.Abs(z))),
        ],
        ids=str,
    )
    def test_true_on_one_side_of_the_real_axis_only(self, lhs, rhs):
        with pytest.raises(CheckFailed, match="the sides differ"):
            checks.identity(lhs, rhs, wrong=rhs + 1)

    def test_true_in_all_octants_but_one(self):
        a, b, c = sympy.symbols("a b c", real=True)
        dent = sympy.prod([sympy.Max(-symbol, 0) for symbol in (a, b, c)])
        with pytest.raises(CheckFailed, match="the sides differ"):
            checks.identity(dent + a, a, wrong=b)

    def test_constants_that_share_digits(self, capsys):
        with pytest.raises(CheckFailed, match=r"the sides differ by -7\.44E-44"):
            checks.identity(sympy.tanh(50), 1, wrong=0)
        checks.identity(sympy.zeta(2, 1), sympy.pi**2 / 6, wrong=sympy.pi / 6)

    def test_a_useless_wrong_matrix(self):
        rhs = sympy.Matrix([x**2 + x, x])
        with pytest.raises(UselessCheck, match="passes as well"):
            checks.identity(sympy.Matrix([(x + 1) * x, x]), rhs, wrong=sympy.Matrix([x * (1 + x), x]))

    def test_half_a_proof_is_none(self):
        f = sympy.Function("f")
        with pytest.raises(CheckFailed, match="could not be shown equal"):
            checks.identity(sympy.Matrix([f(x), x]), sympy.Matrix([f(2 * x), x]), wrong=sympy.eye(2)[:, 0])

    def test_one_pole_is_forgiven(self, monkeypatch, capsys):
        monkeypatch.setattr(checks, "_vanishes", lambda difference: False)
        k = sympy.Symbol("k", integer=True, nonnegative=True)
        checks.identity((k + 1) / k, 1 + 1 / k, wrong=1 / k)
        assert "at 7 random points" in capsys.readouterr().out

    def test_assumptions_of_symbols_are_respected(self):
        checks.identity(sympy.cos(sympy.pi * n), (-1) ** n, wrong=(-1) ** (n + 1))
        positive = sympy.Symbol("p", positive=True)
        checks.identity(sympy.sqrt(positive**2), positive, wrong=-positive)
        with pytest.raises(CheckFailed):
            checks.identity(sympy.sqrt(x**2), x, wrong=-(x**2))

    def test_same_code_twice_is_a_tautology(self):
        with pytest.raises(UselessCheck, match="both sides are the same"):
            checks.identity(x**2, x**2, wrong=x)

    def test_wrong_that_passes_is_useless(self):
        with pytest.raises(UselessCheck, match="the wrong variant passes"):
            checks.identity((x + 1) * x, x**2 + x, wrong=x * (1 + x))

    def test_wrong_is_required(self):
        with pytest.raises(TypeError, match="wrong"):
            checks.identity((x + 1) * x, x**2 + x)
        with pytest.raises(UselessCheck, match="got None"):
            checks.identity((x + 1) * x, x**2 + x, wrong=None)

    @pytest.mark.parametrize(
        ("lhs", "rhs"),
        [
            (sympy.Matrix([[x, 2], [3, 4]]), sympy.Matrix([[x, 2, 3, 4]])),
            (sympy.Matrix([x, 2]), sympy.Matrix([[x, 2]])),
            (sympy.zeros(0, 2), sympy.zeros(0, 2)),
            (sympy.eye(2), sympy.Integer(1)),
        ],
    )
    def test_shapes_must_agree(self, lhs, rhs):
        with pytest.raises(UselessCheck, match="same shape, not empty"):
            checks.identity(lhs, rhs, wrong=2 * rhs)

    def test_shape_of_the_wrong_variant_must_agree(self):
        with pytest.raises(UselessCheck, match="same shape"):
            checks.identity(sympy.Matrix([x, 2]), sympy.Matrix([x, 1 + 1]), wrong=x)

    def test_lists_are_no_expressions(self):
        with pytest.raises(UselessCheck, match="expressions or matrices"):
            checks.identity([x], [x + 0], wrong=[1])

    @pytest.mark.parametrize(
        "wrong", [sympy.nan, sympy.oo, sympy.Function("f")(x), sympy.Integer(2) * x / 2], ids=str
    )
    def test_a_wrong_variant_that_cannot_be_refuted(self, wrong):
        with pytest.raises(UselessCheck, match="passes as well, or has no value"):
            checks.identity(x, (x**2 + x) / (x + 1), wrong=wrong)

    def test_undefined_functions_are_compared_by_proof(self, capsys):
        f = sympy.Function("f")
        checks.identity(f(x).diff(x) * 2, (f(x) * 2).diff(x), wrong=f(x).diff(x))
        assert capsys.readouterr().out.endswith("exact\n")
        with pytest.raises(CheckFailed, match="could not be shown equal"):
            checks.identity(f(x).diff(x), f(x), wrong=f(2 * x))

    k = sympy.Symbol("k", integer=True, nonnegative=True)
    p = sympy.Symbol("p", positive=True)
    z = sympy.Symbol("z")

    @pytest.mark.parametrize(
        ("lhs", "rhs"),
        [
            (sympy.Piecewise((5, sympy.Eq(k, 0)), (1, True)), 1),  # false at the smallest value only
            (sympy.floor(p / 3), 0),  # false for large numbers only
            (sympy.floor(n / 9), 0),
            (sympy.Max(p, sympy.Rational(1, 10)), p),  # false for small ones only
            (sympy.prod([n - i for i in range(1, 9)]), 0),
            (
                sympy.sqrt(z**2),
                sympy.Piecewise((z, sympy.re(z) > 0), (-z, True)) * sympy.sign(sympy.im(z)) ** 2 + z,
            ),
        ],
        ids=str,
    )
    def test_false_away_from_ordinary_numbers(self, lhs, rhs):
        with pytest.raises(CheckFailed, match="the sides differ"):
            checks.identity(lhs, rhs, wrong=rhs + 7)

    @pytest.mark.parametrize(
        "assumed",
        [
            dict(negative=True),
            dict(imaginary=True),
            dict(integer=True, odd=True),
            dict(nonpositive=True),
            dict(),
        ],
        ids=str,
    )
    def test_points_are_what_the_symbols_are_assumed_to_be(self, assumed):
        symbol = sympy.Symbol("s", **assumed)
        for point in checks._random_points([symbol]):
            assert all(getattr(point[symbol], f"is_{name}") is truth for name, truth in assumed.items())

    def test_integers_have_both_signs_where_they_may(self):
        symbol = sympy.Symbol("s", integer=True)
        values = [point[symbol] for point in checks._random_points([symbol])]
        assert min(values) < 0 < max(values)

    def test_a_symbol_that_no_number_can_be(self):
        strange = sympy.Symbol("s", irrational=True)
        with pytest.raises(UselessCheck, match="found no number"):
            checks.identity(strange, strange * 1, wrong=-strange)

    def test_values_at_one_point_prove_nothing(self):
        f = sympy.Function("f")
        lhs = sympy.Piecewise((1, sympy.Eq(n, 1)), (f(n), True))
        rhs = sympy.Piecewise((1, sympy.Eq(n, 1)), (f(n + 1), True))
        with pytest.raises(CheckFailed, match="could not be shown equal"):
            checks.identity(lhs, rhs, wrong=2 * rhs)

    def test_small_and_large_numbers_are_compared_by_ratio(self):
        for size in (sympy.Rational(1, 10**25), 10**25):
            with pytest.raises(CheckFailed):
                checks.identity(x * size, x * size * (1 + sympy.Rational(1, 10**20)), wrong=0)

    @pytest.mark.parametrize("false", [2 * sympy.exp(-150), 0, sympy.exp(-160)], ids=str)
    def test_tiny_numbers_differ_as_well(self, false):
        with pytest.raises(CheckFailed):
            checks.identity(sympy.exp(-150), false, wrong=1)

    def test_what_cancellation_leaves_of_zero_is_zero(self, monkeypatch):
        monkeypatch.setattr(checks, "_vanishes", lambda difference: False)
        checks.identity(sympy.sin(x) ** 2 + sympy.cos(x) ** 2 - 1, x - x, wrong=sympy.exp(-50))

    def test_values_on_one_side_only_prove_nothing(self):
        f = sympy.Function("f")
        half = sympy.Piecewise((x, x > 0), (f(x), True))
        with pytest.raises(CheckFailed, match="could not be shown equal"):
            checks.identity(half, x, wrong=3 * x)

    def test_rounded_numbers_belong_in_close(self):
        with pytest.raises(UselessCheck, match="belong in close"):
            checks.identity(x * sympy.Float(1e16) + x, x * sympy.Float(1e16), wrong=2 * x)


class TestClose:
    def test_line_counts_digits(self, capsys):
        checks.close(np.exp(1.0) * (1 + 1e-12), np.e, wrong=2.7)
        assert capsys.readouterr().out == "✓ np.exp(1.0) * (1 + 1e-12) ≈ np.e · 11 digits\n"

    def test_false_statement_points_at_the_worst_element(self):
        with pytest.raises(CheckFailed, match=r"(?s)differ by 5\.000e-01 at \(1,\).*actual.*expected"):
            checks.close(np.array([1.0, 2.5]), np.array([1.0, 2.0]), wrong=np.zeros(2))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite_never_passes(self, bad):
        with pytest.raises(CheckFailed):
            checks.close(np.array([1.0, bad]), np.array([1.0, bad + 0]), wrong=np.zeros(2))
        with pytest.raises(UselessCheck, match="not finite"):
            checks.close(1.0 + 0, 1.0, wrong=bad)

    def test_nothing_to_compare(self):
        with pytest.raises(UselessCheck, match="empty"):
            checks.close(np.zeros(0), np.zeros((0,)), wrong=np.ones(0))

    def test_same_array_twice_is_a_tautology(self):
        values = np.arange(3.0)
        alias = values
        with pytest.raises(UselessCheck, match="both sides are the same"):
            checks.close(values, alias, wrong=values + 1)

    def test_wrong_inside_the_tolerance_is_useless(self):
        with pytest.raises(UselessCheck, match="the wrong variant passes"):
            checks.close(1.0 + 1e-12, 1.0, wrong=1.05, rtol=0.1)

    def test_shapes_must_agree_but_a_single_number_serves_all(self):
        checks.close(np.full(3, 2.0), 2.0, wrong=1.0)
        with pytest.raises(UselessCheck, match=r"shapes differ: \(3,\) and \(1, 3\)"):
            checks.close(np.ones(3), np.ones((1, 3)), wrong=2.0)

    def test_vanishing_values_need_an_absolute_tolerance(self, capsys):
        checks.close(np.sin(np.pi), 0.0, wrong=1.0, atol=1e-15)
        assert "largest error 1.2e-16" in capsys.readouterr().out
        with pytest.raises(CheckFailed):
            checks.close(np.sin(np.pi), 0.0, wrong=1.0)

    def test_sympy_and_complex_numbers(self):
        checks.close([sympy.pi, sympy.E], [np.pi, np.e], wrong=[3, 2])
        checks.close(np.exp(1j * np.pi), -1.0, wrong=1.0)

    def test_wrong_is_required(self):
        with pytest.raises(TypeError, match="wrong"):
            checks.close(1.0 + 0, 1.0)

    @pytest.mark.parametrize(
        ("actual", "expected"),
        [
            (np.array([1 + 2j], np.complex64), [1 + 0j]),
            ([1 + 2 * sympy.I], [1]),
            (1.0, np.inf),
            (np.inf, np.inf),
        ],
        ids=str,
    )
    def test_what_is_not_equal(self, actual, expected):
        with pytest.raises(CheckFailed):
            checks.close(actual, expected, wrong=0)

    def test_an_error_where_zero_is_expected_is_shown(self, capsys):
        checks.close([1.0, 1e-3], [1.0, 0.0], wrong=[2.0, 2.0], atol=1e-2)
        assert capsys.readouterr().out.endswith("largest error 1.0e-03\n")

    def test_a_view_is_no_second_route(self):
        values = np.array([1.0, 2.0])
        with pytest.raises(UselessCheck, match="both sides are the same"):
            checks.close(values[:], values, wrong=0)
        checks.at_most(values[:-1], values[1:])  # neighbours are two sides

    @pytest.mark.parametrize("value", ["1.0", True, np.array([True, False])], ids=str)
    def test_text_and_truth_are_no_numbers(self, value):
        with pytest.raises(UselessCheck, match="numbers are compared"):
            checks.close(value, 1.0, wrong=2.0)

    def test_one_complex_element_is_enough(self):
        with pytest.raises(CheckFailed):
            checks.close([1 + 2j, 1], [1, 1], wrong=0)

    def test_keywords_are_sources_too(self):
        with pytest.raises(UselessCheck, match=r"both sides are the same: math\.sqrt\(2\)"):
            checks.close(actual=math.sqrt(2), expected=math.sqrt(2), wrong=0)

    def test_a_transpose_is_another_side(self):
        symmetric = np.array([[1.0, 2.0], [2.0, 1.0]])
        checks.close(symmetric.T, symmetric, wrong=np.eye(2))

    def test_tolerance_is_relative_to_what_is_expected(self):
        with pytest.raises(CheckFailed):
            checks.close(1.9, 1.0, wrong=7.0, rtol=0.5)

    def test_the_same_list_twice(self):
        values = [1.0, 2.0]
        with pytest.raises(UselessCheck, match="both sides are the same"):
            checks.close(values, (lambda: values)(), wrong=0)

    def test_long_arguments_that_begin_alike_differ(self):
        checks.close(
            math.fsum([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2]),
            math.fsum([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
            wrong=1.5,
        )

    def test_tensors_that_carry_a_gradient(self):
        keras = pytest.importorskip("keras")
        checks.close(keras.Variable([1.0, 2.0]) * 2, np.array([2.0, 4.0]), wrong=0, rtol=1e-6)


class TestAtMost:
    grid = np.linspace(-1, 1, 11)

    def test_line_counts_points(self, capsys):
        checks.at_most(1 + self.grid, np.exp(self.grid), equality=(1.0 + 0.0, np.exp(0.0)))
        expected = "✓ 1 + self.grid ≤ np.exp(self.grid) · 11 points, equality attained\n"
        assert capsys.readouterr().out == expected

    def test_violation_is_located(self):
        with pytest.raises(CheckFailed, match=r"(?s)violated by 2\.500e-01 at \(5,\)"):
            checks.at_most(0.25 - self.grid**2, self.grid**2 / 2)

    def test_nan_is_a_violation(self):
        with pytest.raises(CheckFailed):
            checks.at_most(np.array([0.0, np.nan]), 1.0)

    def test_equality_case_must_be_one(self):
        with pytest.raises(CheckFailed, match="no case of equality"):
            checks.at_most(self.grid, 2.0, equality=(1.0, 2.0))

    def test_equal_everywhere_belongs_to_close(self):
        with pytest.raises(UselessCheck, match="state it with close"):
            checks.at_most(self.grid, self.grid + 0.0)

    def test_same_side_twice(self):
        with pytest.raises(UselessCheck, match="both sides are the same"):
            checks.at_most(self.grid, self.grid)

    def test_nothing_to_compare(self):
        with pytest.raises(UselessCheck, match="empty"):
            checks.at_most(np.zeros(0), np.ones(0))

    @pytest.mark.parametrize(
        ("smaller", "larger"),
        [([1 + 5j], 2.0), (np.ones(3), np.full((3, 1), 2.0)), (np.ones((3, 1)), np.full(3, 2.0))],
        ids=str,
    )
    def test_sides_that_cannot_be_ordered(self, smaller, larger):
        with pytest.raises(UselessCheck, match=r"no order|shapes differ"):
            checks.at_most(smaller, larger)

    def test_infinity_bounds_nothing(self):
        with pytest.raises(CheckFailed, match=r"not finite at \(1,\)"):
            checks.at_most([1.0, np.inf], 7.0)
        with pytest.raises(CheckFailed, match="not finite"):
            checks.at_most(1.0, np.inf)

    def test_equality_case_is_two_numbers_computed_apart(self):
        q = np.ones(1)
        checks.at_most([1.0, 0.0], 2.0, equality=(math.comb(4, 2), 6))  # one object in Python, and honest
        for case in (([], []), (q, q), (), (1.0, 1.0, 1.0)):
            with pytest.raises(UselessCheck, match="computed apart"):
                checks.at_most(1.0, 2.0, equality=case)
        with pytest.raises(CheckFailed, match="no case of equality"):
            checks.at_most(1.0, 2.0, equality=(1.0, np.inf))

    def test_equality_case_of_one_spelling(self):
        with pytest.raises(UselessCheck, match=r"both sides of the equality case are np\.sin\(0\.3\)"):
            checks.at_most(np.sin(self.grid), 5.0, equality=(np.sin(0.3), np.sin(0.3)))

    def test_equality_at_zero_is_said(self, capsys):
        checks.at_most(self.grid**2, 7 * self.grid**2, equality=(0.0**2, 7 * 0.0**2))
        assert capsys.readouterr().out.endswith("equality at zero\n")

    @pytest.mark.parametrize("case", [(1.0, 1 + 1e-8), (1e-9, 9e-8)])
    def test_equality_case_agrees_to_nine_digits(self, case):
        with pytest.raises(CheckFailed, match="no case of equality"):
            checks.at_most(1.0, 2.0, equality=case)

    def test_tiny_bounds_are_attained_to_nine_digits_too(self):
        with pytest.raises(CheckFailed, match="no case of equality"):
            checks.at_most([1e-14, 1e-15], 1e-12, equality=(1e-14, 9e-13))

    def test_only_rounding_is_forgiven(self):
        with pytest.raises(CheckFailed, match="violated"):
            checks.at_most([1 + 1e-12, 0.0], 1.0)


class TestTimeLimit:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_is_heard_though_a_destructor_swallows_the_first_alarm(self):
        class Slow:
            def __del__(self):
                time.sleep(0.3)

        def work():
            Slow()
            time.sleep(3)

        before = signal.getsignal(signal.SIGALRM)
        with pytest.raises(TimeoutError), checks._time_limit(0.1):
            work()
        assert gc.isenabled()
        assert signal.getsignal(signal.SIGALRM) is before
