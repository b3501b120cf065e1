"""The mathematics of the articles, one idea a module; NumPy, SciPy and sympy only."""
