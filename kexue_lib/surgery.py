"""Cutting a model and replacing one of its layers, with the weights shared.

Article 6985 cuts a model in the middle by rewriting the lists of layers inside it. Keras 3 does it natively,
`keras.Model(layer.output, model.output)`, with two catches that are taken care of here: its error for a cut
that forgets a branch does not say which, and `layer.output` belongs to the first model that the layer was
called in, which is another one as soon as layers are shared.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras

from kexue_lib.validation import require

Node = Any  # of Keras: one call of a layer, with the symbolic tensors that went in and came out


def submodel(model: keras.Model, start: str | Sequence[str], end: str) -> keras.Model:
    """Return the part of a model behind the layer `start`, up to and including the layer `end`.

    The new model's input is what comes out of `start`. Layers and weights are shared with the old model, so
    training one trains the other. A mask is a tensor, too: if it crosses the cut, name the operation that
    makes it in `start` as well, `not_equal` for the mask of an embedding.

    Args:
        model: functional, or sequential and built.
        start: name of a layer, or names where several tensors cross the cut, as next to a residual
            connection; the new model takes them as a list, in this order. An input layer is a layer, too, and
            so is an operation like `keras.ops.add`.
        end: name of a layer behind them.

    Returns:
        A functional model.

    Raises:
        ValueError: if the model is of another kind, has no such layer or calls it several times; if `end`
            does not depend on each of `start`; or if it needs the output of more layers, which are named.

    >>> names = ["one", "two", "three"]
    >>> layers = [keras.layers.Dense(size, name=name) for size, name in zip([4, 5, 6], names)]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> part = submodel(model, "one", "three")
    >>> part.input_shape, part.output_shape, part.get_layer("two") is layers[1]
    ((None, 4), (None, 6), True)

    Source: article 6985.
    """
    names = [start] if isinstance(start, str) else list(start)
    require(len(names) > 0, "start", start, "at least one layer")
    nodes = _nodes(model)
    first = [_called_once(nodes, "start", name) for name in names]
    last = _called_once(nodes, "end", end)
    _require_cut(nodes, first, last)
    inputs = [tensor for node in first for tensor in node.outputs]
    return _model_between(inputs, last.outputs)


def replace_layer(
    model: keras.Model, name: str, function: Callable[[keras.layers.Layer], keras.layers.Layer]
) -> keras.Model:
    """Return a model in which another layer stands where the layer `name` stood.

    All other layers are shared with the old model, weights and all; what is trained in one is trained in the
    other. The old model keeps its layer. A layer that is called several times is replaced everywhere. A model
    that was compiled is compiled again in the same way, with an optimizer of its own.

    Args:
        model: functional or sequential.
        name: of a layer, at the top level of the model, that is not an input.
        function: called once with the layer, returns the new one. Give the new one the name of the old, if
            it is to be found under it.

    Returns:
        A model of the same kind. (It comes from `keras.models.clone_model`, which copies weights only if its
        `clone_function` makes it do so; here the function returns the very layers.)

    Raises:
        ValueError: if the model is of another kind or has no such layer, if it was compiled with something
            that Keras cannot make again by its name, if `function` returns no layer, or if the new layer does
            not fit its place.

    >>> layers = [keras.layers.Dense(size, name=name) for size, name in [(4, "body"), (10, "head")]]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> tuned = replace_layer(model, "head", lambda head: keras.layers.Dense(3, name=head.name))
    >>> tuned.output_shape, tuned.get_layer("body") is model.get_layer("body")
    ((None, 3), True)

    Source: article 6985.
    """
    require(_is_graph(model), "model", model, "functional or sequential")
    layers = {layer.name: layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)}
    _require_known("name", name, layers)
    _require_compiles_again(model)
    old = layers[name]
    new = function(old)
    require(isinstance(new, keras.layers.Layer), "what function returns", new, "a layer")
    try:
        return keras.models.clone_model(model, clone_function=lambda layer: new if layer is old else layer)
    except Exception as error:  # of whatever type the backend raises for tensors that do not fit
        wanted = f"one whose layer fits in place of {name!r}"
        raise ValueError(f"function must be {wanted}, got {new!r} from it: {error}") from error


def _require_compiles_again(model: keras.Model) -> None:
    """Raise if it was compiled with a loss, a metric or an optimizer that Keras cannot make again."""
    try:
        keras.saving.deserialize_keras_object(model.get_compile_config() if model.compiled else {})
    except Exception as error:  # of a type that depends on what it is
        wanted = (
            "not compiled yet, or with a loss, metrics and an optimizer that are Keras' or registered "
            "with keras.saving.register_keras_serializable"
        )
        raise ValueError(f"model must be {wanted}, got {model!r}: {error}") from error


def _is_graph(model: object) -> bool:
    return isinstance(model, keras.Model) and isinstance(model, keras.Sequential | keras.Function)


def _nodes(model: keras.Model) -> list[Node]:
    """Return the calls that make up this model, each after the calls that it depends on.

    A layer remembers its calls in all models; which of them belong to this one, only the model knows.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    require(_is_graph(graph), "model", model, "functional, or sequential and built")
    by_depth = sorted(graph._nodes_by_depth.items(), reverse=True)
    return [node for _, nodes in by_depth for node in nodes]


def _called_once(nodes: Sequence[Node], argument: str, name: str) -> Node:
    """Return the one call of the layer `name`."""
    calls: dict[str, list[Node]] = {}
    for node in nodes:
        calls.setdefault(node.operation.name, []).append(node)
    _require_known(argument, name, calls)
    times = len(calls[name])
    require(times == 1, argument, name, f"a layer that the model calls once; it calls this one {times} times")
    return calls[name][0]


def _require_known(argument: str, name: str, known: Collection[str]) -> None:
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4) or known
    listed = ", ".join(repr(other) for other in near)
    require(name in known, argument, name, f"the name of a layer of the model, such as {listed}")


def _require_cut(nodes: Sequence[Node], starts: Sequence[Node], end: Node) -> None:
    """Raise unless the calls of `starts` are all that `end` needs, and no more."""
    producers = {id(tensor): node for node in nodes for tensor in node.outputs}
    needs = {node: [producers[id(tensor)] for tensor in node.input_tensors] for node in nodes}

    behind: set[Node] = set()
    for node in nodes:
        if node not in starts and any(need in starts or need in behind for need in needs[node]):
            behind.add(node)

    part, waiting = set(), [end]
    while waiting:
        node = waiting.pop()
        if node not in part:
            part.add(node)
            waiting += [] if node in starts else needs[node]

    unused = [node.operation.name for node in starts if node not in part or end in starts]
    require(
        not unused, "end", end.operation.name, f"a layer behind each layer of start, which {unused} are not"
    )
    outside = {need for node in part & behind for need in needs[node]} - behind - set(starts)
    missing = [node.operation.name for node in nodes if node in outside]
    given = [node.operation.name for node in starts]
    require(not missing, "start", given, f"all that {end.operation.name!r} needs; {missing} are missing")


def _model_between(inputs: list, outputs: list) -> keras.Model:
    """Return the model between tensors, without harm to the models that they belong to.

    If some of `inputs` come from an input layer and others from the middle, Keras 3.15 calls that input layer
    once more and notes the new call on the old tensor; the old model can then no longer be saved. So the part
    is rebuilt on inputs of its own, with the very same layers, and the old notes are put back.
    """
    histories = [tensor._keras_history for tensor in inputs]
    part = keras.Model(_one_or_list(inputs), _one_or_list(outputs))
    if any(tensor._keras_history != old for tensor, old in zip(inputs, histories, strict=True)):
        part = keras.models.clone_model(part, clone_function=lambda layer: layer)
        for tensor, old in zip(inputs, histories, strict=True):
            tensor._keras_history = old
    return part


def _one_or_list(tensors: list) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors
