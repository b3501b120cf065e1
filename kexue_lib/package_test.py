"""Promises of the package as a whole."""

import subprocess
import sys


def test_importing_the_library_loads_no_framework():
    """Not NumPy either: `import kexue_lib` costs what Python's own import costs."""
    heavy = ["numpy", "scipy", "sympy", "matplotlib", "keras", "tensorflow", "jax", "torch"]
    code = f"import sys, kexue_lib; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_derivations_load_no_framework():
    code = (
        "import sys\n"
        "from kexue_lib import checks, data, notebook, plotting\n"
        "from kexue_lib.mathematics import angles, developable, matrix_functions, rope\n"
        "from kexue_lib.text import trees\n"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
