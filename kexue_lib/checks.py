"""Checks that a chapter makes after each equation: identity, close, at_most.

A check compares two sides that came from different routes and must also reject a plausible wrong variant,
so that a check which cannot fail is itself an error. A passed check shows one line; a failed one raises
with both sides.
"""

import ast
import gc
import html
import inspect
import linecache
import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

MIME = "application/vnd.kexue.check+json"
WORKING_DIGITS = 50  # sympy evaluates both sides with this many digits ...
AGREEING_DIGITS = 35  # ... and they must share this many: the rest is room for cancellation
RANDOM_POINTS = 8
SIMPLIFY_SECONDS = 8.0


class CheckFailed(AssertionError):  # noqa: N818 - reads better in a traceback
    """The statement is false, or could not be decided."""


class UselessCheck(ValueError):  # noqa: N818
    """The check could not have failed: no wrong variant, a wrong variant that passes, or a tautology."""


def identity(lhs: Any, rhs: Any, *, wrong: Any) -> None:
    """Check that two sympy expressions are equal for all values of their symbols.

    Both sides are first evaluated to 50 digits at random points that respect the assumptions of their
    symbols, which finds a false statement at once; then sympy tries to prove that the difference vanishes.
    If it cannot within a few seconds, the line says that the evidence is numerical.

    Args:
        lhs: sympy expression or matrix, or anything `sympy.sympify` takes.
        rhs: the same, obtained by a different route.
        wrong: a plausible wrong variant of `rhs`, which must be rejected.

    Raises:
        CheckFailed: if the sides differ, or nothing can be decided.
        UselessCheck: if `wrong` is missing or passes, or both sides are the same piece of code.

    >>> import sympy
    >>> x = sympy.Symbol("x", real=True)
    >>> identity(sympy.sin(2 * x), 2 * sympy.sin(x) * sympy.cos(x), wrong=sympy.sin(x) * sympy.cos(x))
    ✓ sympy.sin(2 * x) = 2 * sympy.sin(x) * sympy.cos(x) · exact
    """
    import sympy

    sources = _argument_sources(inspect.currentframe().f_back, ("lhs", "rhs"))
    _refuse_tautology(sources, lhs, rhs, wrong)
    left, right, rejected = (_entries(sympy.sympify(side)) for side in (lhs, rhs, wrong))
    if len(left) != len(right) or len(left) != len(rejected):
        raise UselessCheck("lhs, rhs and wrong must have the same shape")
    points = list(_random_points(left + right + rejected))
    method = _compare_expressions(left, right, points)
    if method is None:
        raise CheckFailed(_two_sides("lhs", lhs, "rhs", rhs, _counter_example(left, right, points)))
    if _compare_expressions(left, rejected, points) is not None:
        raise UselessCheck(f"the wrong variant passes as well: {wrong}")
    _show(f"{sources[0]} = {sources[1]}", method)


def close(actual: Any, expected: Any, *, wrong: Any, rtol: float = 1e-10, atol: float = 0.0) -> None:
    """Check that numbers agree: |actual − expected| ≤ atol + rtol·|expected|, element by element.

    Args:
        actual: a number, array or tensor.
        expected: the same shape (or a single number), obtained by a different route.
        wrong: a plausible wrong variant of `expected`, which must be rejected.
        rtol: relative tolerance; float64 closed forms keep the default, float32 models use 1e-5.
        atol: absolute tolerance, for values that should vanish.

    Raises:
        CheckFailed: if they do not agree, or a side is not finite.
        UselessCheck: if `wrong` is missing, not finite or passes, or both sides are the same array.

    >>> close(math.fsum([0.1] * 10), 1.0, wrong=10.0)
    ✓ math.fsum([0.1] * 10) ≈ 1.0 · 16 digits
    """
    sources = _argument_sources(inspect.currentframe().f_back, ("actual", "expected"))
    _refuse_tautology(sources, actual, expected, wrong)
    left, right, rejected = (_array(side) for side in (actual, expected, wrong))
    if left.size == 0:
        raise UselessCheck("there is nothing to compare: the arrays are empty")
    if not _agree(left, right, rtol, atol):
        raise CheckFailed(_two_sides("actual", left, "expected", right, _worst_element(left, right)))
    if not np.all(np.isfinite(rejected)):
        raise UselessCheck(f"a wrong variant that is not finite is no rival: {wrong}")
    if _agree(left, rejected, rtol, atol):
        raise UselessCheck(f"the wrong variant passes as well: {wrong}")
    _show(f"{sources[0]} ≈ {sources[1]}", _digits(left, right))


def at_most(smaller: Any, larger: Any, *, equality: tuple[Any, Any] | None = None) -> None:
    """Check an inequality, smaller ≤ larger, at every element (rounding of a few ulp is forgiven).

    Args:
        smaller: a number, array or tensor.
        larger: the same shape, or a single number.
        equality: both sides in a case where the bound is attained, which must agree to nine digits:
            a bound that is sharp somewhere cannot be off by a factor.

    Raises:
        CheckFailed: if the inequality is violated, or the equality case is none.
        UselessCheck: if the two sides are equal everywhere (that is `close`), or the same array.

    >>> angle = np.linspace(0, 1, 5)
    >>> at_most(np.sin(angle), angle, equality=(np.sin(0.0), 0.0))
    ✓ np.sin(angle) ≤ angle · 5 points, equality attained
    """
    sources = _argument_sources(inspect.currentframe().f_back, ("smaller", "larger"))
    _refuse_tautology(sources, smaller, larger, wrong=False)
    left, right = np.broadcast_arrays(_array(smaller), _array(larger))
    slack = 8 * np.finfo(float).eps * np.maximum(np.abs(left), np.abs(right))
    if left.size == 0:
        raise UselessCheck("there is nothing to compare: the arrays are empty")
    if not np.all(left <= right + slack):  # false for NaN as well
        raise CheckFailed(_two_sides("smaller", left, "larger", right, _largest_violation(left, right)))
    if np.all(np.abs(left - right) <= slack):
        raise UselessCheck("both sides are equal everywhere: state it with close")
    if equality is not None and not _agree(_array(equality[0]), _array(equality[1]), 1e-9, 1e-12):
        raise CheckFailed(_two_sides("smaller", equality[0], "larger", equality[1], "no case of equality"))
    attained = "" if equality is None else ", equality attained"
    _show(f"{sources[0]} ≤ {sources[1]}", f"{left.size:,} points{attained}")


# --- what the reader sees --------------------------------------------------------------------------------


def _show(statement: str, method: str) -> None:
    from IPython import get_ipython
    from IPython.display import display

    text = f"✓ {statement} · {method}"
    if get_ipython() is None:
        print(text)
        return
    line = (
        '<div class="kexue-check" style="opacity:.85"><span style="color:#188038">✓</span> '
        f"<code>{html.escape(statement)}</code> · {html.escape(method)}</div>"
    )
    payload = {"statement": statement, "method": method}
    display({"text/plain": text, "text/html": line, MIME: payload}, raw=True)


def _two_sides(left_name: str, left: Any, right_name: str, right: Any, detail: str) -> str:
    return f"{detail}\n  {left_name} = {left}\n  {right_name} = {right}"


def _argument_sources(frame: FrameType, names: tuple[str, str]) -> tuple[str, str]:
    """Return the source text of the first two arguments of the call that `frame` is making."""
    call = _call_node(frame)
    if call is None:
        return names
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    nodes = [*call.args[:2], *(keywords[name] for name in names if name in keywords)]
    texts = [_shorten(ast.unparse(node)) for node in nodes]
    return tuple(texts) if len(texts) == 2 else names


def _call_node(frame: FrameType) -> ast.Call | None:
    """Parse the call being executed, found by the position that Python ≥ 3.11 keeps for it."""
    position = inspect.getframeinfo(frame, context=0).positions
    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    if position is None or position.lineno is None or not lines:
        return None
    chosen = [line.encode() for line in lines[position.lineno - 1 : position.end_lineno]]
    chosen[-1] = chosen[-1][: position.end_col_offset]
    chosen[0] = chosen[0][position.col_offset :]
    try:
        tree = ast.parse(b"".join(chosen).decode(), mode="eval")
    except SyntaxError:  # for instance a magic command: the check works, its line is less telling
        return None
    return tree.body if isinstance(tree.body, ast.Call) else None


def _shorten(text: str, limit: int = 72) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _refuse_tautology(sources: tuple[str, str], left: Any, right: Any, wrong: Any) -> None:
    if wrong is None:
        raise UselessCheck("wrong must be a plausible wrong variant, got None")
    if sources[0] == sources[1] or (isinstance(left, np.ndarray) and left is right):
        raise UselessCheck(f"both sides are the same: {sources[0]}")


# --- numbers ---------------------------------------------------------------------------------------------


def _array(value: Any) -> np.ndarray:
    """Return numbers, arrays, sympy or mpmath numbers and tensors of any backend as float or complex."""
    if hasattr(value, "detach"):  # torch: NumPy refuses tensors that carry a gradient
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype == object:
        array = array.astype(complex)
        array = array.real if np.all(array.imag == 0) else array
    return array if array.dtype == complex else array.astype(float)


def _agree(actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> bool:
    if expected.ndim and actual.shape != expected.shape:
        raise UselessCheck(f"shapes differ: {actual.shape} and {expected.shape}")
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
    return bool(np.all(error <= atol + rtol * np.abs(expected)))  # false for NaN; inf − inf is NaN


def _digits(actual: np.ndarray, expected: np.ndarray) -> str:
    error, scale = np.abs(actual - expected), np.abs(expected) + np.zeros_like(np.abs(actual))
    if np.all(scale == 0):
        return f"largest error {np.max(error):.1e}"
    relative = np.max(error[scale > 0] / scale[scale > 0]) if np.ndim(scale) else error / scale
    digits = min(16, math.floor(-math.log10(max(float(relative), 1e-16))))
    return f"{digits} digits" if digits > 0 else f"largest error {np.max(error):.1e}"


def _worst_element(actual: np.ndarray, expected: np.ndarray) -> str:
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
    where = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
    place = f" at {tuple(map(int, where))}" if where else ""
    return f"the sides differ by {error[where]:.3e}{place}"


def _largest_violation(smaller: np.ndarray, larger: np.ndarray) -> str:
    excess = smaller - larger
    where = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
    return f"the inequality is violated by {excess[where]:.3e} at {tuple(map(int, where))}"


# --- expressions -----------------------------------------------------------------------------------------


def _entries(expression: Any) -> list:
    return list(expression) if hasattr(expression, "shape") else [expression]


def _random_points(expressions: list) -> Iterator[dict]:
    """Yield values for all free symbols: inside what the symbols assume, and the same in every run."""
    import sympy

    symbols = sorted(set().union(*(e.free_symbols for e in expressions)), key=str)
    generator = np.random.default_rng(20190218)

    def draw(symbol: Any) -> Any:
        if symbol.is_integer:
            return sympy.Integer(int(generator.integers(1 if symbol.is_nonnegative else -6, 9)))
        value = sympy.Rational(int(generator.integers(211, 2411)), 997)
        if symbol.is_nonnegative:
            return value
        value *= int(generator.choice([-1, 1]))
        return (
            value if symbol.is_real else value + sympy.I * sympy.Rational(int(generator.integers(997)), 997)
        )

    for _ in range(RANDOM_POINTS if symbols else 1):
        yield {symbol: draw(symbol) for symbol in symbols}


def _value(expression: Any, point: dict) -> Any | None:
    """Return the expression at `point` to 50 digits, or None where it has no numerical value."""
    import sympy

    value = sympy.N(expression.subs(point), WORKING_DIGITS)
    return value if value.is_number and value.is_finite else None


def _differ(left: Any, right: Any) -> bool:
    import sympy

    scale = max(abs(left), abs(right), sympy.Float("1e-30"))
    return bool(abs(left - right) > scale * sympy.Float(10) ** -AGREEING_DIGITS)


def _counter_example(left: list, right: list, points: list[dict]) -> str:
    for point in points:
        for one, other in zip(left, right, strict=True):
            values = _value(one, point), _value(other, point)
            if None not in values and _differ(*values):
                real = {symbol: value for symbol, value in point.items() if value.is_real}
                shown = ", ".join(f"{symbol} = {float(value):.6g}" for symbol, value in real.items())
                place = f" at {shown}" if shown else ""
                return f"the sides differ{place}: {values[0].n(12)} against {values[1].n(12)}"
    return "the sides could not be shown equal, and have no numerical values to compare"


def _compare_expressions(left: list, right: list, points: list[dict]) -> str | None:
    """Return how the equality was established ("exact", or with how many points), None if it was not."""
    compared = 0
    for point in points:
        values = [(_value(a, point), _value(b, point)) for a, b in zip(left, right, strict=True)]
        known = [pair for pair in values if None not in pair]
        if any(_differ(*pair) for pair in known):
            return None
        compared += len(known) == len(values)
    if all(_vanishes(a - b) for a, b in zip(left, right, strict=True)):
        return "exact"
    enough = compared >= (RANDOM_POINTS // 2 if len(points) > 1 else 1)
    return f"numerical, {AGREEING_DIGITS} digits at {compared} random points" if enough else None


def _vanishes(difference: Any) -> bool:
    """Whether sympy proves within a few seconds that the expression is zero."""
    import sympy

    try:
        with _time_limit(SIMPLIFY_SECONDS):
            expanded = sympy.expand(difference)
            # powsimp first: simplify alone does not see that cos(x)**(m-1) * cos(x) is cos(x)**m.
            return expanded == 0 or 0 in (sympy.simplify(sympy.powsimp(expanded)), sympy.simplify(difference))
    except (TimeoutError, NotImplementedError, RecursionError):
        return False


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after `seconds`, where the platform can (POSIX, main thread)."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def expire(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    collecting = gc.isenabled()
    # An exception raised inside a destructor or a callback of the garbage collector (JAX installs one) is
    # printed and dropped. So nothing is collected meanwhile, and the alarm rings until it is heard.
    gc.disable()
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if collecting:
            gc.enable()
