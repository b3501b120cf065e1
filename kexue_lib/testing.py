"""The contract that every layer of the library keeps, as one call in its test."""

import inspect
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Any  # an array, or a list, tuple or dictionary of arrays, as the layer takes them
Shape = tuple[int, ...]


class LayerContractError(AssertionError):
    """A layer breaks the contract; the message starts with the clause that it breaks."""


def check_layer(
    layer_class: type,
    init_kwargs: Mapping[str, object],
    inputs: Arrays,
    *,
    expected_output_shape: Shape,
    mask: np.ndarray | None = None,
    expected_mask: np.ndarray | None = None,
) -> None:
    """Raise unless a layer with one output tensor keeps the contract of the library.

    The clauses, by the names that messages start with:

    * `registered`: with `register_keras_serializable(package="kexue")`, unless it is Keras' own.
    * `config`: `get_config` holds every argument of `__init__` with its value and survives JSON.
    * `shape`: output, `compute_output_shape` and symbolic call agree, for every batch size.
    * `mask`: the mask of the inputs, or the one the layer makes, arrives at the output.
    * `precision`: the output has the dtype of the policy and is finite, weights have the policy's dtype.
    * `training`: a step has a finite loss and changes the weights, compiled by XLA and not.
    * `compiled`: `predict`, compiled by XLA and not, gives the result of a plain call.
    * `saving`: a model with the layer, saved and loaded, gives the same result.

    Left out: XLA on PyTorch and where a layer says `supports_jit = False`; float64 on JAX, which has it only
    behind a global switch; training where there is nothing to train.

    Args:
        layer_class: a subclass of `keras.layers.Layer`.
        init_kwargs: its arguments; give every one a value that is not its default.
        inputs: float32 or integer arrays, batch axis first, with at least two examples.
        expected_output_shape: shape of the output for `inputs`, batch axis included.
        mask: boolean, shape (batch, time): attached to the inputs; the layer must then support masking.
        expected_mask: what the output must carry; the same as `mask` if not given. Give it alone for a layer
            that makes a mask.

    Raises:
        LayerContractError: naming the clause, what was found and what was wanted.

    >>> import keras
    >>> inputs = np.ones((2, 4), "float32")
    >>> check_layer(keras.layers.Dense, {"units": 3}, inputs, expected_output_shape=(2, 3))
    """
    layer = _check_config(layer_class, init_kwargs)
    _check_registered(layer_class)
    _check_shapes(layer, inputs, expected_output_shape)
    if mask is not None or expected_mask is not None:
        _check_mask(layer, inputs, mask, mask if expected_mask is None else expected_mask)
    _check_precision(layer_class, init_kwargs, inputs)
    for jit_compile in _jit_compile_settings(layer):
        _check_training(layer_class, init_kwargs, inputs, jit_compile)
        _check_compiled(layer, inputs, jit_compile)
    _check_saving(layer, inputs)


def _require(condition: bool, clause: str, problem: str) -> None:
    if not condition:
        raise LayerContractError(f"{clause}: {problem}")


@contextmanager
def _clause(clause: str, task: str) -> Iterator[None]:
    """Name the clause for errors that come out of Keras or out of the layer itself."""
    try:
        yield
    except LayerContractError:
        raise
    except Exception as error:
        raise LayerContractError(f"{clause}: {task} failed with {type(error).__name__}: {error}") from error


def _is_from_keras(layer_class: type) -> bool:
    return layer_class.__module__.split(".")[0] == "keras"


def _check_registered(layer_class: type) -> None:
    import keras

    if _is_from_keras(layer_class):
        return
    name = keras.saving.get_registered_name(layer_class)
    wanted = '@keras.saving.register_keras_serializable(package="kexue")'
    _require(name == f"kexue>{layer_class.__name__}", "registered", f"as {name!r}; decorate it with {wanted}")


def _check_config(layer_class: type, init_kwargs: Mapping[str, object]) -> Any:
    """Check the configuration and return a layer that went through JSON."""
    with _clause("config", "making the layer, its config and a layer from that"):
        config = layer_class(**init_kwargs).get_config()
        rebuilt = layer_class.from_config(json.loads(json.dumps(config)))
        again = json.dumps(rebuilt.get_config())
    _require(again == json.dumps(config), "config", f"{config} came back from JSON as {again}")
    # Keras leaves optional arguments that are None out of the configuration of its own layers; we never do.
    for name in init_kwargs if _is_from_keras(layer_class) else _init_arguments(layer_class):
        _require(name in config, "config", f"get_config leaves out {name!r}, an argument of __init__")
    for name, value in init_kwargs.items():
        if isinstance(value, Number | str):
            _require(config[name] == value, "config", f"{name!r} is {config[name]!r}, given was {value!r}")
    return rebuilt


def _init_arguments(layer_class: type) -> list[str]:
    parameters = list(inspect.signature(layer_class.__init__).parameters.values())[1:]  # without self
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _check_shapes(layer: Any, inputs: Arrays, expected: Shape) -> None:
    import keras

    any_batch = (None, *expected[1:])
    with _clause("shape", "calling the layer on a symbolic input"):
        symbolic = layer(_symbolic(inputs)).shape
    _require(symbolic == any_batch, "shape", f"the symbolic output has {symbolic}, expected {any_batch}")
    with _clause("shape", "compute_output_shape"):
        shapes = keras.tree.map_structure(lambda array: (None, *array.shape[1:]), inputs)
        computed = tuple(layer.compute_output_shape(shapes))
    _require(computed == any_batch, "shape", f"compute_output_shape gives {computed}, expected {any_batch}")
    for count in (expected[0], 1):
        with _clause("shape", f"calling the layer on {count} examples"):
            found = tuple(layer(keras.tree.map_structure(lambda array, n=count: array[:n], inputs)).shape)
        wanted = (count, *expected[1:])
        _require(found == wanted, "shape", f"the output for {count} examples has {found}, expected {wanted}")


def _check_mask(layer: Any, inputs: Arrays, mask: np.ndarray | None, expected: np.ndarray) -> None:
    from keras import ops

    supported = mask is None or layer.supports_masking
    _require(supported, "mask", "the layer does not set supports_masking, so Keras drops the mask")
    with _clause("mask", "calling the layer on masked inputs"):
        outputs = layer(inputs if mask is None else _with_mask(inputs, mask))
    found = getattr(outputs, "_keras_mask", None)  # where Keras keeps it; there is no public way to ask
    _require(found is not None, "mask", "the output carries no mask: compute_mask gives None")
    equal = np.array_equal(ops.convert_to_numpy(found), expected)
    _require(equal, "mask", f"the output carries another mask than expected: {found}")


def _with_mask(inputs: Arrays, mask: np.ndarray) -> Arrays:
    """Attach a mask in the way of Keras: as the output of a layer that makes one."""
    import keras
    from keras import ops

    class MaskSource(keras.layers.Layer):
        def call(self, inputs: Arrays) -> Arrays:
            return inputs

        def compute_mask(self, inputs: Arrays, previous_mask: Arrays = None) -> Arrays:
            return keras.tree.map_structure(lambda _: ops.convert_to_tensor(mask), inputs)

    return MaskSource()(keras.tree.map_structure(ops.convert_to_tensor, inputs))


def _check_precision(layer_class: type, init_kwargs: Mapping[str, object], inputs: Arrays) -> None:
    import keras
    from keras import ops

    wide = [] if keras.backend.backend() == "jax" else ["float64"]
    for name in ("mixed_float16", "mixed_bfloat16", *wide):
        policy = keras.dtype_policies.get(name)
        with _clause("precision", f"calling the layer with policy {name}"):
            layer = layer_class(**{**init_kwargs, "dtype": name})
            outputs = layer(inputs)
            finite = bool(ops.convert_to_numpy(ops.all(ops.isfinite(outputs))))
        dtype = keras.backend.standardize_dtype(outputs.dtype)
        is_wanted = dtype == policy.compute_dtype or not keras.backend.is_float_dtype(dtype)
        _require(is_wanted, "precision", f"with policy {name} the output has dtype {dtype}")
        _require(finite, "precision", f"with policy {name} the output is not finite")
        for weight in layer.trainable_weights:
            has_dtype = weight.dtype == policy.variable_dtype
            _require(has_dtype, "precision", f"with policy {name} {weight.path} has dtype {weight.dtype}")


def _jit_compile_settings(layer: Any) -> list[bool]:
    import keras

    return [False, True] if keras.backend.backend() != "torch" and layer.supports_jit else [False]


def _check_training(
    layer_class: type, init_kwargs: Mapping[str, object], inputs: Arrays, jit_compile: bool
) -> None:
    import keras

    model = _model(layer_class(**init_kwargs), inputs)
    if not model.trainable_weights:
        return
    before = model.get_weights()
    targets = np.random.default_rng(0).normal(
        size=(len(keras.tree.flatten(inputs)[0]), *model.output_shape[1:])
    )
    with _clause("training", f"one step with jit_compile={jit_compile}"):
        model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit_compile)
        loss = float(model.train_on_batch(inputs, targets))
    _require(math.isfinite(loss), "training", f"the loss is {loss} with jit_compile={jit_compile}")
    after = model.get_weights()
    finite = all(np.all(np.isfinite(weight)) for weight in after)
    _require(finite, "training", f"weights are not finite after a step with jit_compile={jit_compile}")
    trained = {id(weight) for weight in model.trainable_weights}
    changed = [
        id(variable) in trained and not np.array_equal(old, new)
        for variable, old, new in zip(model.weights, before, after, strict=True)
    ]
    _require(any(changed), "training", f"a step with jit_compile={jit_compile} changes no trainable weight")


def _check_compiled(layer: Any, inputs: Arrays, jit_compile: bool) -> None:
    model = _model(layer, inputs)
    with _clause("compiled", f"predict with jit_compile={jit_compile}"):
        model.compile(jit_compile=jit_compile)
        found = model.predict_on_batch(inputs)
    _require_same(found, model(inputs, training=False), "compiled", f"predict with jit_compile={jit_compile}")


def _check_saving(layer: Any, inputs: Arrays) -> None:
    import keras

    model = _model(layer, inputs)
    with tempfile.TemporaryDirectory() as folder, _clause("saving", "saving and loading a model"):
        file = Path(folder) / "model.keras"
        model.save(file)
        found = keras.saving.load_model(file, compile=False)(inputs, training=False)
    _require_same(found, model(inputs, training=False), "saving", "the loaded model")


def _require_same(found: Any, expected: Any, clause: str, what: str) -> None:
    from keras import ops

    found, expected = ops.convert_to_numpy(found), ops.convert_to_numpy(expected)
    same = found.shape == expected.shape and np.allclose(found, expected, rtol=1e-4, atol=1e-5)
    _require(same, clause, f"{what} gives another result than a plain call: {found} and {expected}")


def _model(layer: Any, inputs: Arrays) -> Any:
    import keras

    symbolic = _symbolic(inputs)
    return keras.Model(symbolic, layer(symbolic))


def _symbolic(inputs: Arrays) -> Any:
    import keras

    return keras.tree.map_structure(
        lambda array: keras.Input(array.shape[1:], dtype=str(array.dtype)), inputs
    )
