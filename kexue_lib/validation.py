"""One way to refuse a bad argument: name it, show it, say what was wanted."""

import numbers

import numpy as np


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raise `ValueError("<name> must be <wanted>, got <value>")` unless `condition` holds.

    A comparison with NaN is false, so `require(x > 0, "x", x, "positive")` refuses NaN as well.

    Raises:
        ValueError: if `condition` is false.

    >>> require(2 > 1, "length", 2, "longer than the span 1")
    >>> require(0.5 > 1, "length", 0.5, "longer than the span 1")
    Traceback (most recent call last):
    ValueError: length must be longer than the span 1, got 0.5
    """
    if not condition:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def require_real(name: str, value: object, *, above: float = -np.inf) -> float:
    """Return `value` as a float if it is a finite real number greater than `above`.

    Raises:
        ValueError: if it is not a number, not finite, or not above the bound.
    """
    is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    wanted = "a finite number" if above == -np.inf else f"a finite number above {above:g}"
    require(is_real and np.isfinite(value) and value > above, name, value, wanted)
    return float(value)


def require_integer(name: str, value: object, *, minimum: int) -> int:
    """Return `value` as an int if it is a whole number of at least `minimum`.

    Raises:
        ValueError: if it is not a whole number or too small.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    require(is_integer and value >= minimum, name, value, f"a whole number of at least {minimum}")
    return int(value)
