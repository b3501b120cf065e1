"""Callbacks that Keras does not have: the best weights by any measure, and values that follow a schedule.

From article 5765, whose learning-rate steps are `keras.callbacks.LearningRateScheduler` today, and whose
checkpoints by a metric of Keras are `keras.callbacks.ModelCheckpoint`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kexue_lib.validation import require


class BestMetric(keras.callbacks.Callback):
    """Evaluates a model after each epoch by any function, and restores the best weights when training ends.

    For measures that are no tensor operation: BLEU, the exact match of generated text, a game that is played.
    A value of NaN is never the best, and of equal values the first is. The weights are kept in memory, those
    that are not trained included; the optimizer is not restored. Everything starts anew with each `fit`.

    Training that ends by an exception, a keyboard interrupt for one, restores nothing: Keras does not tell
    its callbacks.

    Args:
        evaluate: called with the model, returns a number.
        mode: "max" if more is better, "min" if less is.
        name: of the value in the logs, where the history of `fit` and callbacks after this one find it.

    Attributes:
        best: the best value, None if there is none.
        best_epoch: the epoch it was measured after, as Keras counts, from 0.
        history: the values of all epochs.

    Raises:
        ValueError: if `mode` is neither, or, in training, if `evaluate` does not return a number.

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    >>> model.compile(keras.optimizers.SGD(0.5), loss="mse")
    >>> callback = BestMetric(lambda model: model.get_weights()[0][0, 0])
    >>> _ = model.fit(np.ones((1, 1)), np.zeros((1, 1)), epochs=3, callbacks=[callback], verbose=0)
    >>> callback.history, callback.best_epoch  # the weight goes from 1 to 0, back to 1, and to 0
    ([0.0, 1.0, 0.0], 1)
    >>> model.get_weights()[0].tolist()
    [[1.0]]

    Source: article 5765.
    """

    def __init__(self, evaluate: Callable[[keras.Model], float], mode: str = "max", name: str = "metric"):
        super().__init__()
        require(mode in ("max", "min"), "mode", mode, 'either "max" or "min"')
        self.evaluate = evaluate
        self.mode = mode
        self.name = name
        self._start()

    def _start(self) -> None:
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.history: list[float] = []
        self._weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Forget the training before."""
        self._start()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Evaluate the model, and keep its weights if they are the best so far."""
        value = _number(self.evaluate(self.model))
        self.history.append(value)
        if logs is not None:
            logs[self.name] = value
        if self._is_better(value):
            self.best, self.best_epoch = value, epoch
            self._weights = self.model.get_weights()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Give the model its best weights."""
        if self._weights is not None:
            self.model.set_weights(self._weights)

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        return value > self.best if self.mode == "max" else value < self.best


def _number(value: Any) -> float:
    try:
        return float(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)
    except (TypeError, ValueError):
        raise ValueError(
            f"evaluate must be a function that returns a number, got {value!r} from it"
        ) from None


class HyperparameterSchedule(keras.callbacks.Callback):
    """Sets a variable to a function of the step before each batch of training.

    For the learning rate, `optimizer.learning_rate`, and for whatever a loss or a layer reads: a smoothing, a
    temperature, the weight of a term. It must be a `keras.Variable`. A Python number becomes a constant of
    the compiled graph when the first batch is traced, and changing it later changes nothing.

    On JAX the model must hold the variable, too, for a compiled step sees only the state of the model and its
    optimizer: `model.smoothing = keras.Variable(0.1, trainable=False)` is enough.

    Args:
        variable: what to set.
        function: of the step, the number of batches that the callback has seen before: 0, 1, … over its whole
            life, not starting anew with each epoch or `fit`. With `steps_per_execution` above 1, it is called
            once for each execution.

    Attributes:
        step: the number of batches so far.

    Raises:
        ValueError: if `variable` is no `keras.Variable`; on JAX, in training, if the model does not hold it.

    A linear warm-up of the learning rate to 0.001 over 10 batches:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(), loss="mse")
    >>> rate = model.optimizer.learning_rate
    >>> warm_up = HyperparameterSchedule(rate, lambda step: 0.001 * min(1, (step + 1) / 10))
    >>> _ = model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=1, callbacks=[warm_up], verbose=0)
    >>> warm_up.step, round(float(keras.ops.convert_to_numpy(rate)), 6)
    (4, 0.0004)

    Source: article 5765.
    """

    def __init__(self, variable: keras.Variable, function: Callable[[int], float]):
        super().__init__()
        wanted = (
            "a keras.Variable (a number is baked into the compiled graph, where no callback can change it; "
            "an optimizer made with a LearningRateSchedule has no variable to set)"
        )
        require(isinstance(variable, keras.Variable), "variable", variable, wanted)
        self.variable = variable
        self.function = function
        self.step = 0
        self._first_batch = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Check that compiled steps will see the variable change."""
        if keras.backend.backend() != "jax":
            return
        held = [*self.model.variables, *self.model.optimizer.variables]
        is_held = any(variable is self.variable for variable in held)
        wanted = "held by the model on JAX: assign it to an attribute, as in `model.smoothing = variable`"
        require(is_held, "variable", self.variable, wanted)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Set the variable."""
        # Asking for the model makes Keras give back, on JAX, the values that it holds between two steps; a
        # value that is assigned before would be overwritten.
        _ = self.model
        self.variable.assign(self.function(self.step))
        self._first_batch = batch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the batches of this execution."""
        # The end of the epoch may cut the last execution short.
        batches = self.params.get("steps") or math.inf
        self.step += int(min(batch + 1, batches)) - self._first_batch
