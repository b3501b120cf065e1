"""Learning rates that change with the step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from kexue_lib.validation import require, require_integer, require_real


@keras.saving.register_keras_serializable(package="kexue")
class PiecewiseLinear(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that runs in straight lines between knots, and stays at the last one. (Article 7094.)

    Before the first step is taken the step is 0. Unless the first knot stands there, the rate starts from 0:
    a single knot is a warm-up. Keras shows a schedule the number of batches, which under
    `gradient_accumulation_steps` is not the number of updates.

    Args:
        knots: learning rate at some steps, in the order of the steps.

    Raises:
        ValueError: if there are no knots, a step is negative or not whole, the steps do not increase, or a
            rate is not a finite number of at least 0.

    >>> rate = PiecewiseLinear({1000: 1.0, 2000: 0.1})
    >>> [round(float(rate(step)), 3) for step in (0, 500, 1000, 1500, 5000)]
    [0.0, 0.5, 1.0, 0.55, 0.1]
    """

    def __init__(self, knots: Mapping[int, float] | Sequence[tuple[int, float]]):
        super().__init__()
        pairs = [(step, rate) for step, rate in dict(knots).items()]
        require(len(pairs) > 0, "knots", knots, "at least one step with its rate")
        steps = [require_integer("a step of knots", step, minimum=0) for step, _ in pairs]
        require(
            len(pairs) == len(knots) and all(a < b for a, b in itertools.pairwise(steps)),
            "knots",
            knots,
            "in the order of their steps, each step once",
        )
        rates = [require_real(f"the rate at step {step}", rate, minimum=0.0) for step, rate in pairs]
        self.knots = list(zip(steps, rates, strict=True))

    def __call__(self, step: int) -> float:
        """Return the rate before step number `step`, a scalar tensor of float32."""
        knots = self.knots if self.knots[0][0] == 0 else [(0, 0.0), *self.knots]
        step = ops.cast(step, "float32")
        rate = knots[-1][1]
        # From the last line to the first, each up to its end: at a knot the rate is the knot's. (A sum of
        # rises would miss a final 0 by its rounding.)
        for (start, low), (end, high) in reversed(list(itertools.pairwise(knots))):
            rate = ops.where(step < end, low + (high - low) * (step - start) / (end - start), rate)
        return ops.convert_to_tensor(rate, dtype="float32")

    def get_config(self) -> dict:
        """Return the knots as a list of pairs, which JSON keeps as it is."""
        return {"knots": self.knots}
