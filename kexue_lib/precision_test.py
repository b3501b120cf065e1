"""What is widened, and what is left as it is."""

import keras
import pytest
from keras import ops

from kexue_lib.precision import at_least_float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "bool"])
def test_narrow_numbers_become_float32(dtype):
    assert keras.backend.standardize_dtype(at_least_float32(ops.ones(3, dtype)).dtype) == "float32"


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX makes float64 only where x64 is switched on"
)
def test_double_stays_double():
    assert keras.backend.standardize_dtype(at_least_float32(ops.ones(3, "float64")).dtype) == "float64"
