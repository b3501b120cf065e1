"""The library's own ratios, a part of `make bench`: what a training step or a loss costs beside Keras' own.

Everything is compiled (`jit_compile=True`). Prints one measurement a line as JSON: what, ratio, unit, bound.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kexue_lib import losses, optimizers
from kexue_lib.autodiff import gradient

BATCH, WIDTH, STEPS = 128, 768, 30
EPOCH_ROUNDS, LOSS_ROUNDS = 5, 40  # an epoch takes a second, ten losses a tenth


def main() -> None:
    """Print every measurement."""
    for what, ratio, bound in (*training_steps(), *loss_gradients()):
        print(json.dumps([f"{what} ({keras.backend.backend()})", ratio, "×", bound]), flush=True)


def training_steps() -> Iterator[tuple[str, float, float]]:
    """Yield the step of each optimizer on an MLP of a million parameters, against Adam's."""
    adam = keras.optimizers.Adam
    everywhere = {"lazy_rows": ["."]}
    made = {"AdaX": optimizers.AdaX(1e-3)}
    for mixin in optimizers.MIXINS:
        settings = everywhere if mixin is optimizers.LazyRows else {}
        made[mixin.__name__] = optimizers.derive(adam, mixin)(1e-3, **settings)
    made["all mixins"] = optimizers.derive(adam, *optimizers.MIXINS)(1e-3, **everywhere)
    models = {name: million_parameters(optimizer) for name, optimizer in {"Adam": adam(1e-3), **made}.items()}
    seconds = side_by_side({name: epoch_of(model) for name, model in models.items()}, EPOCH_ROUNDS)
    for name in made:
        bound = {"AdaX": 1.15, "all mixins": 1.8}.get(name, 1.3)
        yield f"training step: {name} / Adam", seconds[name] / seconds["Adam"], bound


def million_parameters(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Return a compiled MLP of 984 832 parameters."""
    hidden = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((256,)), *hidden, keras.layers.Dense(256)])
    model.compile(optimizer, loss="mse", jit_compile=True)
    return model


def epoch_of(model: keras.Model) -> Callable[[], Any]:
    """Return a function that trains for one epoch of `STEPS` steps."""
    inputs = np.random.default_rng(0).normal(size=(BATCH * STEPS, 256)).astype("float32")
    return lambda: model.fit(inputs, inputs, batch_size=BATCH, verbose=0, shuffle=False)


def loss_gradients() -> Iterator[tuple[str, float, float]]:
    """Yield a loss and its gradient by the scores against Keras' nearest."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(256, 1000)).astype("float32")
    labels = ops.convert_to_tensor((rng.random((256, 1000)) < 0.003).astype("float32"))
    seconds = side_by_side(
        {
            "ours": gradient_of(lambda s: losses.zlpr(labels, s), scores),
            "Keras": gradient_of(
                lambda s: keras.losses.binary_crossentropy(labels, s, from_logits=True), scores
            ),
        },
        LOSS_ROUNDS,
    )
    yield "ZLPR / BinaryCrossentropy, 256 × 1000, with gradient", seconds["ours"] / seconds["Keras"], 1.5
    seconds = side_by_side(
        {
            "ours": gradient_of(lambda s: losses.log_elementary_symmetric(s, 20), scores[:64]),
            "Keras": gradient_of(lambda s: ops.logsumexp(s, axis=-1), scores[:64]),
        },
        LOSS_ROUNDS,
    )
    what = "log_elementary_symmetric, k = 20 / logsumexp, 64 × 1000, with gradients"
    yield what, seconds["ours"] / seconds["Keras"], 60.0


def gradient_of(loss: Callable[[Any], Any], scores: np.ndarray) -> Callable[[], Any]:
    """Return a function that evaluates the compiled gradient and mean some times over and waits for the last.

    A training step has both, gradient and mean loss; the gradient alone would let the compiler drop half of
    a loss.
    """
    at = ops.convert_to_tensor(scores)
    function = compiled(lambda s: (gradient(loss, s), ops.mean(loss(s))))

    def evaluate() -> np.ndarray:
        for _ in range(9):
            function(at)
        return ops.convert_to_numpy(function(at)[0])

    return evaluate


def compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Compile by XLA, which `kexue_lib.autodiff.compiled` leaves out on TensorFlow."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    import jax

    return jax.jit(function)


def side_by_side(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the best seconds of each after a call that compiles.

    They take turns under the same load, each round in another order: whoever follows a heavy neighbour
    finds a cold cache.
    """
    best = {name: float("inf") for name in functions}
    for function in functions.values():
        function()
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(functions)):
            start = time.perf_counter()
            functions[name]()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
