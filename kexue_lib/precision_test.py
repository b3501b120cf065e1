"""What is widened, and what is left as it is."""

import keras
import pytest
from keras import ops

from kexue_lib.precision import as_float, at_least_float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "bool"])
def test_narrow_numbers_become_float32(dtype):
    assert keras.backend.standardize_dtype(at_least_float32(ops.ones(3, dtype)).dtype) == "float32"


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX makes float64 only where x64 is switched on"
)
def test_double_stays_double():
    assert keras.backend.standardize_dtype(at_least_float32(ops.ones(3, "float64")).dtype) == "float64"


@pytest.mark.parametrize(
    ("dtype", "expected"), [("int32", "float32"), ("bool", "float32"), ("float16", "float16")]
)
def test_only_what_is_no_float_is_converted(dtype, expected):
    assert keras.backend.standardize_dtype(as_float(ops.ones(3, dtype)).dtype) == expected
