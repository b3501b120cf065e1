"""The sequence layers' own ratios, a part of `make bench`: sparse attention and ON-LSTM beside Keras' own.

Everything is float32, compiled by XLA (`jit_compile=True`). Prints one measurement a line as JSON: what,
ratio, unit, bound.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from ci.bench_training import compiled, side_by_side
from kexue_lib import layers
from kexue_lib.autodiff import gradient

HEADS, HEAD_SIZE, LENGTH, STRIDE = 4, 32, 4096, 64
LENGTHS = [512 * 2**k for k in range(6)]  # to 16384
ROUNDS, SHORT_ROUNDS = 5, 20  # Keras' attention takes a second, ours milliseconds
TIMES_FASTER = {  # than Keras' attention, at least: local, sparse
    ("tensorflow", "forward"): (5, 3.5),
    ("tensorflow", "forward + backward"): (15, 10),
    ("jax", "forward"): (20, 10),
    ("jax", "forward + backward"): (25, 15),
}
Call = Callable[[Any], Any]


def main() -> None:
    """Print every measurement."""
    backend = keras.backend.backend()
    memory = score_memory() if backend == "jax" else ()  # only JAX tells
    for what, ratio, unit, bound in (*attention(backend), *memory, *slopes(), *recurrent_steps()):
        print(json.dumps([f"{what} ({backend})", ratio, unit, bound]), flush=True)


def attention(backend: str) -> Iterator[tuple[str, float, str, float]]:
    """Yield local and sparse attention against Keras' on the same input."""
    calls = attention_calls()
    for direction, turned in (("forward", lambda call: call), ("forward + backward", backward)):
        timed = {name: waited(turned(call), inputs_of(LENGTH)) for name, call in calls.items()}
        seconds = side_by_side(timed, ROUNDS)
        for name, faster in zip(("local", "sparse"), TIMES_FASTER[backend, direction], strict=True):
            what = f"{name} attention / Keras', n = {LENGTH}, {direction}"
            yield what, seconds[name] / seconds["Keras"], "×", 1 / faster


def attention_calls() -> dict[str, Call]:
    """Return the three self-attentions as functions of their input."""
    keras_layer = keras.layers.MultiHeadAttention(HEADS, HEAD_SIZE)
    return {
        "local": layers.LocalSelfAttention(HEADS, HEAD_SIZE, window=STRIDE),
        "sparse": layers.SparseSelfAttention(HEADS, HEAD_SIZE, stride=STRIDE),
        "Keras": lambda x: keras_layer(x, x),
    }


def backward(call: Call) -> Call:
    """Return the function that also propagates a slope back to the input."""
    return lambda x: gradient(lambda x: call(x) ** 2, x)


def score_memory() -> Iterator[tuple[str, float, str, float]]:
    """Yield what the compiled programs hold at a time beside inputs and outputs, against Keras'."""
    import jax

    calls, x = attention_calls(), inputs_of(LENGTH)
    for direction, turned in (("forward", lambda call: call), ("forward + backward", backward)):
        held = {}
        for name, call in calls.items():
            call(x)  # builds the layer
            program = jax.jit(turned(call)).lower(x).compile()
            held[name] = program.memory_analysis().temp_size_in_bytes
        for name in ("local", "sparse"):
            yield f"memory: {name} attention / Keras', {direction}", held[name] / held["Keras"], "×", 1 / 8


def slopes() -> Iterator[tuple[str, float, str, float]]:
    """Yield the slopes of log seconds against log n: a fixed window, and a stride that grows with √n."""
    timed = {}
    for n in LENGTHS:
        local = layers.LocalSelfAttention(HEADS, HEAD_SIZE, window=STRIDE)
        sparse = layers.SparseSelfAttention(HEADS, HEAD_SIZE, stride=round(n**0.5))
        timed |= {f"local {n}": waited(local, inputs_of(n)), f"sparse {n}": waited(sparse, inputs_of(n))}
    seconds = side_by_side(timed, SHORT_ROUNDS)
    for name, bound in (("local", 1.25), ("sparse", 1.55)):
        slope, _ = np.polyfit(np.log(LENGTHS), np.log([seconds[f"{name} {n}"] for n in LENGTHS]), 1)
        yield f"slope of time: {name} attention, n = {LENGTHS[0]} to {LENGTHS[-1]}", slope, "", bound


def recurrent_steps() -> Iterator[tuple[str, float, str, float]]:
    """Yield ON-LSTM with its gradient against Keras' LSTM cell in the same loop."""
    units, chunk_size, batch, time_steps = 256, 8, 32, 64
    cells = {
        "ours": layers.OrderedNeuronsLSTMCell(units, chunk_size),
        "Keras": keras.layers.LSTMCell(units),
    }
    x = np.random.default_rng(0).normal(size=(batch, time_steps, units)).astype("float32")
    timed = {name: waited(backward(keras.layers.RNN(cell)), x) for name, cell in cells.items()}
    seconds = side_by_side(timed, SHORT_ROUNDS)
    yield f"ON-LSTM / LSTM, {units} units, with gradient", seconds["ours"] / seconds["Keras"], "×", 1.6


def inputs_of(length: int) -> np.ndarray:
    """Return one example, shape (1, length, features)."""
    return np.random.default_rng(0).normal(size=(1, length, HEADS * HEAD_SIZE)).astype("float32")


def waited(call: Call, x: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the compiled function on its input, which returns when the result is there."""
    at = ops.convert_to_tensor(x)
    call(at)  # builds the layer, eagerly
    function = compiled(call)
    return lambda: ops.convert_to_numpy(function(at))


if __name__ == "__main__":
    main()
