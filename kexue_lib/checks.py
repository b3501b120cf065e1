"""Checks that a chapter makes after each equation: identity, close, at_most.

A check compares two sides that came from different routes and must also reject a plausible wrong variant, so
that a check which cannot fail is itself an error; `at_most` can be given a case of equality instead, in which
its bound must be attained. A passed check shows one line; a failed one raises with both sides. Two spellings
of one computation (x + 1 and 1 + x) are still one route: no check sees that.
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

from kexue_lib.output import show

MIME = "application/vnd.kexue.check+json"
WORKING_DIGITS = 50  # sympy evaluates both sides with this many digits ...
AGREEING_DIGITS = 35  # ... and they must share this many: the rest is room for cancellation
NOISY_BITS = 116  # sympy keeps account of the bits that survived; so many are 35 digits
RANDOM_POINTS = 8
SIMPLIFY_SECONDS = 8.0


class CheckFailed(AssertionError):  # noqa: N818 - reads better in a traceback
    """The statement is false, or could not be decided."""


class UselessCheck(ValueError):  # noqa: N818
    """The check could not have failed: no wrong variant, a wrong variant that passes, or a tautology."""


def identity(lhs: Any, rhs: Any, *, wrong: Any) -> None:
    """Check that two sympy expressions are equal for all values of their symbols.

    Both sides are first evaluated to 50 digits at eight points that are all their symbols are assumed to be,
    which finds a false statement at once: sizes from 0.05 to 10 (the first ones small, the second ones
    large), all signs that the first three symbols can have, complex numbers on both sides of the real axis,
    integers from -9 to 19. Then sympy tries for a few seconds to prove that the difference vanishes. If it
    cannot, the line says that the evidence is numerical; it knows nothing of what happens between its points.

    Args:
        lhs: sympy expression or matrix, or what `sympy.sympify` makes one of.
        rhs: the same, of the same shape, obtained by a different route.
        wrong: a plausible wrong variant of `rhs`, which must be refuted.

    Raises:
        CheckFailed: if the sides differ, or nothing can be decided.
        UselessCheck: if `wrong` is missing, passes or has no value where `lhs` has one, if shapes differ, or
            both sides are the same piece of code.

    >>> import sympy
    >>> x = sympy.Symbol("x", real=True)
    >>> identity(sympy.sin(2 * x), 2 * sympy.sin(x) * sympy.cos(x), wrong=sympy.sin(x) * sympy.cos(x))
    ✓ sympy.sin(2 * x) = 2 * sympy.sin(x) * sympy.cos(x) · exact
    """
    sources = _argument_sources(inspect.currentframe().f_back, ("lhs", "rhs"))
    _refuse_tautology(sources, lhs, rhs)
    _require_rival(wrong)
    left, right, rejected = _entries(lhs, rhs, wrong)
    points = list(_random_points(left + right + rejected))
    known = [[_value(entry, point) for entry in left] for point in points]
    compared, difference = _compare(known, right, points)
    exact = difference is None and _all_equal(left, right)
    if not (exact or difference or any(points)):
        difference = _difference_of_constants(left, right)
    # One point may be a pole of both sides, for the smallest values are among the points.
    if difference or not (exact or 0 < compared >= len(points) - 1):
        few = f"values to compare at {compared} of {len(points)} points"
        detail = difference or f"the sides could not be shown equal, and have {few}"
        raise CheckFailed(_two_sides("lhs", lhs, "rhs", rhs, detail))
    refuted = _compare(known, rejected, points)[1] is not None
    if all(None in row for row in known):  # undefined functions have no values: then a failed proof must do
        refuted = not _all_equal(left, rejected)
    if not refuted:
        raise UselessCheck(f"the wrong variant passes as well, or has no value: {wrong}")
    where = f" at {compared} random points" if any(points) else ""
    numerical = f"numerical, {AGREEING_DIGITS} digits{where}"
    _report(sources, "=", "exact" if exact else numerical)


def close(actual: Any, expected: Any, *, wrong: Any, rtol: float = 1e-10, atol: float = 0.0) -> None:
    """Check that numbers agree: |actual − expected| ≤ atol + rtol·|expected|, element by element.

    Args:
        actual: a number, array or tensor.
        expected: the same shape (or a single number), obtained by a different route.
        wrong: a plausible wrong variant of `expected`, which must be rejected.
            Everything is compared in float64, whole numbers too.
        rtol: relative tolerance; float64 closed forms keep the default, float32 models use 1e-5.
        atol: absolute tolerance, for values that should vanish.

    Raises:
        CheckFailed: if they do not agree, or a side is not finite.
        UselessCheck: if `wrong` is missing, not finite or passes, or both sides are the same array.

    >>> close(math.fsum([0.1] * 10), 1.0, wrong=10.0)
    ✓ math.fsum([0.1] * 10) ≈ 1.0 · 16 digits
    """
    sources = _argument_sources(inspect.currentframe().f_back, ("actual", "expected"))
    _refuse_tautology(sources, actual, expected)
    _require_rival(wrong)
    left, right, rejected = (_array(side) for side in (actual, expected, wrong))
    if left.size == 0:
        raise UselessCheck("there is nothing to compare: the arrays are empty")
    if not _agree(left, right, rtol, atol):
        raise CheckFailed(_two_sides("actual", left, "expected", right, _worst_element(left, right)))
    if not np.all(np.isfinite(rejected)):
        raise UselessCheck(f"a wrong variant that is not finite is no rival: {wrong}")
    if _agree(left, rejected, rtol, atol):
        raise UselessCheck(f"the wrong variant passes as well: {wrong}")
    _report(sources, "≈", _digits(left, right))


def at_most(smaller: Any, larger: Any, *, equality: tuple[Any, Any] | None = None) -> None:
    """Check an inequality, smaller ≤ larger, at every element (rounding of a few ulp is forgiven).

    Args:
        smaller: a number, array or tensor.
        larger: the same shape, or a single number.
        equality: both sides in a case where the bound is attained, which must agree to nine digits: a bound
            that is sharp somewhere, and not at zero, cannot be off by a factor. Compute them by the same
            formulas. Without it the line only says that the bound was not violated.

    Raises:
        CheckFailed: if the inequality is violated, a side is not finite, or the equality case is none.
        UselessCheck: if the two sides are equal everywhere (that is `close`), the same array, complex, or of
            different shapes, or if both sides of the equality case are the same piece of code.

    >>> x = np.linspace(0.5, 2, 7)
    >>> at_most(np.log(x), x / np.e, equality=(np.log(np.e), np.e / np.e))
    ✓ np.log(x) ≤ x / np.e · 7 points, equality attained
    """
    sources = _argument_sources(inspect.currentframe().f_back, ("smaller", "larger"))
    _refuse_tautology(sources, smaller, larger)
    left, right = _array(smaller), _array(larger)
    if left.size == 0:
        raise UselessCheck("there is nothing to compare: the arrays are empty")
    if np.iscomplexobj(left) or np.iscomplexobj(right):
        raise UselessCheck("complex numbers have no order")
    if left.ndim and right.ndim and left.shape != right.shape:
        raise UselessCheck(f"shapes differ: {left.shape} and {right.shape}")
    left, right = np.broadcast_arrays(left, right)
    slack = 8 * np.finfo(float).eps * np.maximum(np.abs(left), np.abs(right))
    if not np.all(np.isfinite(left) & np.isfinite(right) & (left <= right + slack)):
        raise CheckFailed(_two_sides("smaller", left, "larger", right, _largest_violation(left, right)))
    if np.all(np.abs(left - right) <= slack):
        raise UselessCheck("both sides are equal everywhere: state it with close")
    attained = ""
    if equality is not None:
        _refuse_one_spelling(_call_node(inspect.currentframe().f_back))
        tiny = 1e-12 * min(1.0, float(np.max(np.abs(right))))
        attained = f", equality {_check_equality_case(equality, tiny)}"
    _report(sources, "≤", f"{left.size:,} points{attained}")


def _check_equality_case(equality: tuple[Any, Any], tiny: float) -> str:
    if len(equality) != 2 or _is_shared(*equality) or _array(equality[0]).size == 0:
        raise UselessCheck("equality must hold both sides of the bound, computed apart, in one case")
    smaller, larger = (_array(side) for side in equality)
    if not _agree(smaller, larger, 1e-9, tiny):
        raise CheckFailed(_two_sides("smaller", smaller, "larger", larger, "no case of equality"))
    # Nothing is told of a factor where both sides vanish.
    return "attained" if np.any(np.abs(larger) > tiny) else "at zero"


def _refuse_one_spelling(call: ast.Call | None) -> None:
    """Refuse `equality=(f(x), f(x))`."""
    for keyword in call.keywords if call else []:
        if keyword.arg == "equality" and isinstance(keyword.value, ast.Tuple):
            spellings = [ast.unparse(side) for side in keyword.value.elts]
            if len(set(spellings)) < len(spellings):
                raise UselessCheck(f"both sides of the equality case are {spellings[0]}")


# --- what the reader sees --------------------------------------------------------------------------------


def _report(sources: tuple[str, str], relation: str, method: str) -> None:
    statement = f"{_shorten(sources[0])} {relation} {_shorten(sources[1])}"
    line = (
        '<div class="kexue-check" style="opacity:.85"><span style="color:#188038">✓</span> '
        f"<code>{html.escape(statement)}</code> · {html.escape(method)}</div>"
    )
    payload = {"statement": statement, "method": method}
    show(f"✓ {statement} · {method}", markup=line, facts={MIME: payload})


def _two_sides(left_name: str, left: Any, right_name: str, right: Any, detail: str) -> str:
    return f"{detail}\n  {left_name} = {left}\n  {right_name} = {right}"


def _argument_sources(frame: FrameType, names: tuple[str, str]) -> tuple[str, str]:
    """Return the source text of the first two arguments of the call that `frame` is making."""
    call = _call_node(frame)
    if call is None:
        return names
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    nodes = [*call.args[:2], *(keywords[name] for name in names if name in keywords)]
    texts = [ast.unparse(node) for node in nodes]
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


def _require_rival(wrong: Any) -> None:
    if wrong is None:
        raise UselessCheck("wrong must be a plausible wrong variant, got None")


def _refuse_tautology(sources: tuple[str, str], left: Any, right: Any) -> None:
    if sources[0] == sources[1] or _is_shared(left, right):
        raise UselessCheck(f"both sides are the same: {_shorten(sources[0])}")


def _is_shared(left: Any, right: Any) -> bool:
    """Whether both are the same elements of one array; equal numbers and symbols may well be one object."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        one, other = left.__array_interface__, right.__array_interface__
        return all(one[key] == other[key] for key in ("data", "shape", "strides"))
    return left is right and (hasattr(left, "__len__") or hasattr(left, "dtype"))


# --- numbers ---------------------------------------------------------------------------------------------


def _array(value: Any) -> np.ndarray:
    """Return numbers, arrays, sympy or mpmath numbers and tensors of any backend as float or complex."""
    if hasattr(value, "detach"):  # torch: NumPy refuses tensors that carry a gradient
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind in "Oc":
        array = array.astype(complex)
        return array if np.any(array.imag != 0) else array.real
    if array.dtype.kind not in "iufV":  # V: the bfloat16 of ml_dtypes
        raise UselessCheck(f"numbers are compared, got {value!r}")
    return array.astype(float)


def _agree(actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> bool:
    if expected.ndim and actual.shape != expected.shape:
        raise UselessCheck(f"shapes differ: {actual.shape} and {expected.shape}")
    with np.errstate(invalid="ignore"):
        near = np.abs(actual - expected) <= atol + rtol * np.abs(expected)
    # A finite number is within rtol·inf of infinity.
    return bool(np.all(near & np.isfinite(actual) & np.isfinite(expected)))


def _digits(actual: np.ndarray, expected: np.ndarray) -> str:
    error, scale = np.atleast_1d(*np.broadcast_arrays(np.abs(actual - expected), np.abs(expected)))
    if np.all(scale == 0) or np.any(error[scale == 0] > 0):  # a zero has no digits
        return f"largest error {np.max(error):.1e}"
    relative = np.max(error[scale > 0] / scale[scale > 0])
    digits = min(16, math.floor(-math.log10(max(float(relative), 1e-16))))
    return f"{digits} digits" if digits > 0 else f"largest error {np.max(error):.1e}"


def _worst_element(actual: np.ndarray, expected: np.ndarray) -> str:
    with np.errstate(invalid="ignore"):
        error = np.abs(actual - expected)
    where = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
    place = f" at {tuple(map(int, where))}" if where else ""
    return f"the sides differ by {error[where]:.3e}{place}"


def _largest_violation(smaller: np.ndarray, larger: np.ndarray) -> str:
    finite = np.isfinite(smaller) & np.isfinite(larger)
    excess = np.where(finite, smaller, np.inf) - np.where(finite, larger, 0)
    where = np.unravel_index(np.argmax(excess), excess.shape)
    place = f" at {tuple(map(int, where))}" if where else ""
    return (
        f"the inequality is violated by {excess[where]:.3e}{place}" if finite[where] else f"not finite{place}"
    )


# --- expressions -----------------------------------------------------------------------------------------


def _entries(*sides: Any) -> list[list]:
    """Return the entries of expressions or matrices of one shape."""
    import sympy

    sides = [sympy.sympify(side) for side in sides]
    for side in sides:
        if not isinstance(side, sympy.Expr | sympy.MatrixBase):
            raise UselessCheck(f"lhs, rhs and wrong must be expressions or matrices, got {side!r}")
        if side.has(sympy.Float):
            raise UselessCheck(f"rounded numbers belong in close, got {side}")
    shapes = [getattr(side, "shape", ()) for side in sides]
    if len(set(shapes)) > 1 or 0 in shapes[0]:
        raise UselessCheck(f"lhs, rhs and wrong must have the same shape, not empty, got {shapes}")
    return [list(side) if shape else [side] for side, shape in zip(sides, shapes, strict=True)]


def _random_points(expressions: list) -> Iterator[dict]:
    """Yield values for all free symbols, all that the symbols are assumed to be; the same in every run."""
    symbols = sorted(set().union(*(e.free_symbols for e in expressions)), key=str)
    generator = np.random.default_rng(20190218)
    for number in range(RANDOM_POINTS if symbols else 1):
        yield {
            symbol: _random_value(symbol, generator, number, place) for place, symbol in enumerate(symbols)
        }


def _random_value(symbol: Any, generator: np.random.Generator, number: int, place: int) -> Any:
    """Return a number with all properties that `symbol`, the `place`-th, is assumed to have.

    Point `number` 0 is small and 1 is large; the binary digits of `number` are the signs of three symbols, so
    that eight points have all their combinations.
    """
    import sympy

    def allowed(value: Any) -> bool:
        facts = symbol.assumptions0.items()
        return all(getattr(value, f"is_{fact}", truth) in (truth, None) for fact, truth in facts)

    if symbol.is_integer:
        integers = sorted(range(-9, 20), key=abs) if number == 0 else generator.permutation(np.arange(-9, 20))
        candidates = (sympy.Integer(int(value)) for value in integers)
    else:
        power_of_two = sympy.Integer(2) ** int(generator.integers(-2, 3))
        size = sympy.Rational(int(generator.integers(211, 2411)), 997) * power_of_two
        if number < 2:  # not alike for all symbols, or a - b would vanish
            size = sympy.Rational((53 + 2 * place, 9643 - 14 * place)[number], 997)
        phase = sympy.Rational(int(generator.integers(1, 997)), 997) * (-1) ** int(generator.integers(2))
        positive = number >> place & 1 if place < 3 else generator.integers(2)
        signs = [1, -1] if positive else [-1, 1]
        turns = [] if symbol.is_real else [sign + sympy.I * phase for sign in signs]
        candidates = (size * turn for turn in [*turns, *signs, sympy.I * phase])
    found = next((value for value in candidates if allowed(value)), None)
    if found is None:
        raise UselessCheck(f"found no number that is all that {symbol} is assumed to be")
    return found


def _value(expression: Any, point: dict) -> Any | None:
    """Return the expression at `point` to 50 digits, or None where it has no numerical value."""
    import sympy

    try:
        value = sympy.N(expression.subs(point), WORKING_DIGITS)
    except RecursionError:  # a derivative of an undefined function
        return None
    return value if value.is_number and value.is_finite else None


def _differ(left: Any, right: Any) -> bool:
    import sympy

    scale = max(abs(left), abs(right))
    parts = [part for side in (left, right) for part in side.as_real_imag()]
    # What is left of a zero after cancellation is noise of few digits; a small number has all of them.
    if any(part.is_Float and part != 0 and part._prec < NOISY_BITS for part in parts):
        scale = max(scale, sympy.Float("1e-30"))
    return bool(abs(left - right) > scale * sympy.Float(10) ** -AGREEING_DIGITS)


def _compare(known: list[list], right: list, points: list[dict]) -> tuple[int, str | None]:
    """Return at how many points all entries were compared, and the first difference from `known`, if any."""
    compared = 0
    for point, row in zip(points, known, strict=True):
        values = [_value(entry, point) for entry in right]
        for one, other in zip(row, values, strict=True):
            if None not in (one, other) and _differ(one, other):
                return compared, _counter_example(point, one, other)
        compared += None not in row + values
    return compared, None


def _difference_of_constants(left: list, right: list) -> str | None:
    """Return whether what is left of the difference of two constants has digits of its own, in words."""
    import sympy

    for one, other in zip(left, right, strict=True):
        rest = _value(one - other, {})
        if rest is not None and _differ(rest, sympy.Integer(0)):
            return f"the sides differ by {rest.n(3)}"
    return None


def _counter_example(point: dict, left: Any, right: Any) -> str:
    real = {symbol: value for symbol, value in point.items() if value.is_real}
    shown = ", ".join(f"{symbol} = {float(value):.6g}" for symbol, value in real.items())
    return f"the sides differ{f' at {shown}' if shown else ''}: {left.n(12)} against {right.n(12)}"


def _all_equal(left: list, right: list) -> bool:
    return all(_vanishes(one - other) for one, other in zip(left, right, strict=True))


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
