"""One way to refuse a bad argument: name it, show it, say what was wanted."""

import math
import numbers
from collections.abc import Sequence


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raise `ValueError("<name> must be <wanted>, got <value>")` unless `condition` holds.

    A comparison with NaN is false, so `require(x > 0, "x", x, "positive")` refuses NaN as well.

    Args:
        condition: what must hold.
        name: of the argument, as its user wrote it.
        value: what the argument was.
        wanted: what it should have been, after "must be".

    Raises:
        ValueError: if `condition` is false.

    >>> require(2 > 1, "length", 2, "longer than the span 1")
    >>> require(0.5 > 1, "length", 0.5, "longer than the span 1")
    Traceback (most recent call last):
    ValueError: length must be longer than the span 1, got 0.5
    """
    if not condition:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def require_real(name: str, value: object, *, above: float = -math.inf, minimum: float = -math.inf) -> float:
    """Return `value` as a float if it is a finite real number within its bounds; no bool, no text.

    Args:
        name: of the argument.
        value: what the argument was.
        above: a bound that the number must exceed.
        minimum: a bound that it may attain.

    Raises:
        ValueError: if it is not a number, not finite as a float, or out of bounds.

    >>> require_real("length", 2, above=0), require_real("radius", 0, minimum=0)
    (2.0, 0.0)
    """
    bounds = [(" above ", above), (" of at least ", minimum)]
    wanted = "a finite number" + "".join(f"{word}{bound:g}" for word, bound in bounds if bound > -math.inf)
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        number = float(value) if is_real else math.nan
    except OverflowError:  # a whole number too large for a float
        number = math.inf
    require(math.isfinite(number) and number > above and number >= minimum, name, value, wanted)
    return number


def require_integer(name: str, value: object, *, minimum: int) -> int:
    """Return `value` as an int if it is a whole number of at least `minimum`; no bool, no 3.0.

    Raises:
        ValueError: if it is not a whole number or too small.

    >>> require_integer("count", 3, minimum=1)
    3
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    require(is_integer and value >= minimum, name, value, f"a whole number of at least {minimum}")
    return int(value)


def fits(shape: Sequence[int | None], wanted: Sequence[int | None], *, broadcast: bool = False) -> bool:
    """Return whether a shape is the wanted one; None, an unknown size, is any size.

    Args:
        shape: of a tensor of any backend.
        wanted: another shape.
        broadcast: whether a shape that broadcasts to the wanted one will do.

    >>> fits((None, 3), (2, 3)), fits((1, 3), (2, 3)), fits((2,), (2, 3))
    (True, False, False)
    >>> fits((1, 3), (2, 3), broadcast=True), fits((2, 3), (3,), broadcast=True)
    (True, False)
    """
    pairs = zip(reversed(tuple(shape)), reversed(tuple(wanted)), strict=False)
    matches = (size == other or None in (size, other) or (broadcast and size == 1) for size, other in pairs)
    return len(shape) <= len(wanted) and (broadcast or len(shape) == len(wanted)) and all(matches)
