"""Every helper must refuse false statements, tautologies and useless wrong variants."""

import gc
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

    def test_shapes_must_agree(self):
        with pytest.raises(UselessCheck, match="same shape"):
            checks.identity(sympy.eye(2), sympy.Integer(1), wrong=sympy.Integer(2))


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


class TestTimeLimit:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_is_heard_though_a_destructor_swallows_the_first_alarm(self):
        class Slow:
            def __del__(self):
                time.sleep(0.3)

        def work():
            Slow()
            time.sleep(3)

        with pytest.raises(TimeoutError), checks._time_limit(0.1):
            work()
        assert gc.isenabled()
