import math

import numpy as np
import pytest

from kexue_lib.validation import fits, require_integer, require_real


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "1", True, 1j, None, 0.0], ids=str)
def test_what_is_no_positive_number(value):
    with pytest.raises(ValueError, match="length must be a finite number above 0, got"):
        require_real("length", value, above=0)


@pytest.mark.parametrize("value", [math.nan, -math.inf, -1e-300, False], ids=str)
def test_what_is_negative_or_no_number(value):
    with pytest.raises(ValueError, match="radius must be a finite number of at least 0, got"):
        require_real("radius", value, minimum=0)


@pytest.mark.parametrize("value", [1.0, "1", True, None, 0, math.nan], ids=str)
def test_what_is_no_count(value):
    with pytest.raises(ValueError, match="count must be a whole number of at least 1, got"):
        require_integer("count", value, minimum=1)


def test_numbers_of_numpy_are_numbers():
    assert type(require_real("length", np.float32(0.5))) is float
    assert type(require_integer("count", np.int64(3), minimum=3)) is int


@pytest.mark.parametrize(
    ("shape", "exactly", "by_broadcasting"),
    [
        ((2, 3), True, True),
        ((None, 3), True, True),
        ((2, 1), False, True),
        ((3,), False, True),
        ((), False, True),
        ((3, 3), False, False),
        ((2,), False, False),
        ((1, 2, 3), False, False),
    ],
)
def test_shapes_that_fit_two_by_three(shape, exactly, by_broadcasting):
    assert fits(shape, (2, 3)) == exactly
    assert fits(shape, (2, 3), broadcast=True) == by_broadcasting
    assert fits(shape, (2, None)) == (len(shape) == 2 and shape[0] in (2, None))  # unknown on the other side
