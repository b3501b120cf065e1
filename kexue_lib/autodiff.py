"""Derivatives that `keras.ops` does not offer, the same on TensorFlow, JAX and PyTorch.

Keras differentiates a loss inside `fit` and nowhere else. This is the one file of the library that speaks to
the three frameworks directly; everything built on it is backend-neutral.

Both functions come in two forms, told apart by a keyword:

* `gradient(function, inputs)`: `function` is called with the inputs, a tensor or a list of tensors;
* `gradient(function, weights=model.trainable_variables)`: `function` takes no argument and reads the model.

Their results can be differentiated again. So a gradient penalty is an ordinary line of `compute_loss`,
trained by an ordinary `fit`. They work eagerly, in compiled train steps and in `predict`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kexue_lib.validation import require

Tensor = Any  # tf.Tensor, jax.Array or torch.Tensor, whichever backend Keras runs on
Variable = Any  # keras.Variable


def gradient(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor] | None = None,
    *,
    weights: Sequence[Variable] | None = None,
) -> Tensor | list[Tensor]:
    r"""Return the gradient of the sum of the entries of `function`'s result.

    $$g_i = \frac{\partial}{\partial x_i} \sum_j f_j(x)$$

    For a scalar function that is its gradient. For a function that treats the examples of a batch separately,
    as a critic or an energy does, row n of the result is the gradient of example n. A vector-Jacobian product
    $v^\top \partial f / \partial x$ is `gradient(lambda x: ops.sum(v * function(x)), x)`.

    `function` must be pure: whatever it assigns to variables (moving averages, the state of a random seed) is
    forgotten when it returns, so that every call sees the same state. It can read `model.losses` only if
    `weights` holds all regularised weights of that model (Keras looks for their values there).

    Args:
        function: called with the inputs (one argument for each tensor), or with nothing if `weights` are
            given; returns a floating-point tensor of any shape.
        inputs: a floating-point tensor, or a list of them; arrays and Keras variables are converted.
        weights: Keras variables that `function` reads; floating point, trainable or not.

    Returns:
        A tensor of the shape and dtype of `inputs`, or a list of tensors, one for each entry of `inputs` or
        `weights`. Zero where the function does not depend on an entry.

    Raises:
        ValueError: if not exactly one of `inputs` and `weights` is given, or if it is empty or not floating
            point.

    >>> from keras import ops
    >>> cubes = gradient(lambda x: x**3, ops.convert_to_tensor([1.0, 2.0]))
    >>> ops.convert_to_numpy(cubes).tolist()
    [3.0, 12.0]

    Source: any text on reverse-mode differentiation; the gradient penalty that needs it differentiable is in
    Gulrajani et al., arXiv 1704.00028.
    """
    function, tensors = _as_function_of_tensors(function, inputs, weights)
    gradients = _backend_gradient(function, tensors)
    return gradients if weights is not None or _is_sequence(inputs) else gradients[0]


def hessian_vector_product(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor] | None = None,
    *,
    vectors: Tensor | Sequence[Tensor],
    weights: Sequence[Variable] | None = None,
) -> Tensor | list[Tensor]:
    r"""Return the Hessian of the sum of the entries of `function`'s result, times `vectors`.

    $$Hv = \nabla_x \langle \nabla_x f(x), v \rangle$$

    The Hessian itself is never formed: the product costs a few evaluations of `function`, whatever its size.

    Args:
        function: as for `gradient`; twice differentiable where it is evaluated.
        inputs: as for `gradient`.
        vectors: the vector v, laid out as the inputs or weights: a tensor for a tensor, a list for a list,
            each of the same shape.
        weights: as for `gradient`.

    Returns:
        A tensor or list of tensors, laid out as the inputs or weights.

    Raises:
        ValueError: as for `gradient`, or if `vectors` is not laid out as the inputs or weights.

    >>> from keras import ops
    >>> x = ops.convert_to_tensor([1.0, 2.0])
    >>> product = hessian_vector_product(lambda x: x**3, x, vectors=ops.convert_to_tensor([1.0, 10.0]))
    >>> ops.convert_to_numpy(product).tolist()
    [6.0, 120.0]

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).
    """
    function, tensors = _as_function_of_tensors(function, inputs, weights)
    is_list = weights is not None or _is_sequence(inputs)
    vectors = _as_vectors(_as_list(vectors), tensors)

    def directional_derivative(*tensors: Tensor) -> Tensor:
        return _inner_product(_backend_gradient(function, tensors), vectors)

    products = _backend_gradient(directional_derivative, tensors)
    return products if is_list else products[0]


@contextmanager
def values_of(weights: Sequence[Variable], values: Sequence[Tensor]) -> Iterator[None]:
    """Within this context, let `weights` have `values`, and forget every assignment to a variable at its end.

    The variables themselves are never written to, so there is nothing to restore, whatever happens inside.

    Args:
        weights: Keras variables.
        values: as many tensors, of the shapes of the weights.

    >>> import keras
    >>> scale = keras.Variable(1.0)
    >>> with values_of([scale], [2.0]):
    ...     _ = scale.assign(10 * scale)
    ...     inside = keras.ops.convert_to_numpy(scale)
    >>> float(inside), float(keras.ops.convert_to_numpy(scale))
    (20.0, 1.0)
    """
    import keras

    with keras.StatelessScope(list(zip(weights, values, strict=True)), collect_losses=True) as scope:
        # A scope hides the one around it, where a compiled train step on JAX keeps the values of all weights.
        if scope.original_scope is not None:
            scope.state_mapping = {**scope.original_scope.state_mapping, **scope.state_mapping}
        yield


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled by the backend, for many calls with tensors of the same shapes.

    TensorFlow and JAX trace it once for each set of shapes; PyTorch runs it as it is. What it reads beside
    its arguments may be frozen at the first call, so pass weights as arguments (see `values_of`).

    Args:
        function: takes and returns tensors, or lists, tuples and dictionaries of them; no side effects.

    >>> square = compiled(lambda x: x * x)
    >>> import keras
    >>> float(square(keras.ops.convert_to_tensor(3.0)))
    9.0
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def _as_function_of_tensors(
    function: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor] | None,
    weights: Sequence[Variable] | None,
) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Reduce both forms to one: a function of tensors, free of side effects, and the tensors."""
    import keras
    from keras import ops

    given = [name for name, value in (("inputs", inputs), ("weights", weights)) if value is not None]
    require(len(given) == 1, "inputs or weights", given, "given, one and not both")
    weights = [] if weights is None else list(weights)
    points = [*weights] if given == ["weights"] else _as_list(inputs)
    require(len(points) > 0, given[0], points, "at least one tensor")
    # TensorFlow converts the value of a Keras variable to a tensor, but leaves the variable itself as it is.
    points = [point.value if isinstance(point, keras.Variable) else point for point in points]
    tensors = [ops.convert_to_tensor(point) for point in points]
    _require_floating_point(given[0], tensors)

    def pure_function(*tensors: Tensor) -> Tensor:
        with values_of(weights, tensors if weights else []):
            return ops.sum(function() if weights else function(*tensors))

    return pure_function, tensors


def _as_vectors(vectors: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Convert `vectors` to tensors laid out and typed as `tensors`."""
    from keras import ops

    vectors = [ops.convert_to_tensor(vector) for vector in vectors]
    wanted = [tuple(tensor.shape) for tensor in tensors]
    shapes = [tuple(vector.shape) for vector in vectors]
    require(shapes == wanted, "vectors", f"shapes {shapes}", f"shaped like what it multiplies, {wanted}")
    return [ops.cast(vector, tensor.dtype) for vector, tensor in zip(vectors, tensors, strict=True)]


def _require_floating_point(name: str, tensors: Sequence[Tensor]) -> None:
    import keras

    dtypes = [keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors]
    require(all(keras.backend.is_float_dtype(dtype) for dtype in dtypes), name, dtypes, "floating point")


def _is_sequence(value: object) -> bool:
    return isinstance(value, list | tuple)


def _as_list(value: object) -> list:
    return list(value) if _is_sequence(value) else [value]


def _inner_product(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    from keras import ops

    return sum(ops.sum(a * b) for a, b in zip(left, right, strict=True))


def _backend_gradient(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Differentiate a scalar function of tensors in the framework that Keras runs on."""
    import keras

    bodies = {"tensorflow": _tensorflow_gradient, "jax": _jax_gradient, "torch": _torch_gradient}
    return bodies[keras.backend.backend()](function, tensors)


def _tensorflow_gradient(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return tape.gradient(value, list(tensors), unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _jax_gradient(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    import jax

    return list(jax.grad(function, argnums=range(len(tensors)))(*tensors))


def _torch_gradient(function: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    import torch

    differentiable_again = torch.is_grad_enabled()  # `predict` switches it off
    with torch.enable_grad():
        # A tensor that already belongs to a computation keeps its history, for the derivative of this one.
        tensors = [t if t.requires_grad else t.detach().requires_grad_() for t in tensors]
        value = function(*tensors)
        if not value.requires_grad:  # constant: torch would refuse to differentiate it
            return [torch.zeros_like(tensor) for tensor in tensors]
        return list(
            torch.autograd.grad(
                value, tensors, create_graph=differentiable_again, allow_unused=True, materialize_grads=True
            )
        )
