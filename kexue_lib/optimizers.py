"""Optimizers made from optimizers: building blocks that stack on any Keras optimizer, and AdaX.

A Keras optimizer ends each step by moving a weight. The blocks catch that displacement before it happens,
change it, and hand it on: weight decay inside of it, the step length of each layer (LAMB), no movement of
rows that were not looked up, a rate for each of many networks that train side by side. Lookahead watches
the updates instead. The 2019 article (7094) had to patch Keras' backend while the parent's method ran; since
Keras 3 an optimizer is Python all through, and inheritance does it.

>>> Lamb = derive(keras.optimizers.Adam, InnerWeightDecay, LayerAdaptation)
>>> optimizer = Lamb(learning_rate=0.01, inner_weight_decay=0.1)
>>> type(optimizer).__name__
'Adam_InnerWeightDecay_LayerAdaptation'
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops

from kexue_lib.validation import require, require_integer, require_real

Tensor = Any  # of the backend
Variable = Any  # of Keras, or of the backend that Keras hands to an optimizer


@dataclass(frozen=True)
class Step:
    """One weight's part of an update: what a mixin may look at.

    Attributes:
        weight: its values before the update, any shape.
        path: the name of the weight with its layers, such as "dense/kernel".
        gradient: of the loss, same shape.
        learning_rate: of this update, of the weight's dtype: a scalar, or with `RatePerCopy` one for each
            entry of the weight's first axis, shape (that axis, 1, …, 1).
    """

    weight: Tensor
    path: str
    gradient: Tensor
    learning_rate: Tensor


class Displacing:
    """What the mixins share: it catches the displacement that a base optimizer proposes for a weight."""

    _step: Step | None = None

    def displacement(self, proposed: Tensor, step: Step) -> Tensor:
        """Return what is to be subtracted from the weight instead of `proposed`, same shape.

        A mixin changes `proposed` and passes it on to `super().displacement`, the mixin named after it.
        """
        return proposed

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Let the base optimizer take its step; its assignments come by the methods below."""
        weight = ops.convert_to_tensor(variable)
        path = self._trainable_variables[self._get_variable_index(variable)].path
        gradient, rate = _dense(gradient, weight), ops.cast(learning_rate, weight.dtype)
        self._step = Step(weight, path, gradient, rate)
        try:
            super().update_step(gradient, variable, learning_rate)
        finally:
            self._step = None  # a tensor that is being traced must not outlive its trace

    def assign_sub(self, variable: Variable, value: Tensor) -> None:
        """Subtract, from a weight the displacement that the mixins make of it."""
        super().assign_sub(variable, self._changed(value) if self._is_weight(variable) else value)

    def assign_add(self, variable: Variable, value: Tensor) -> None:
        """Add, to a weight the displacement that the mixins make of it."""
        if self._is_weight(variable):
            super().assign_sub(variable, self._changed(ops.negative(value)))
        else:
            super().assign_add(variable, value)

    def assign(self, variable: Variable, value: Tensor) -> None:
        """Assign; what a weight is moved by is first changed by the mixins."""
        if self._is_weight(variable):
            super().assign_sub(variable, self._changed(self._step.weight - value))
        else:
            super().assign(variable, value)

    def _is_weight(self, variable: Variable) -> bool:
        return self._step is not None and self._var_key(variable) in self._trainable_variables_indices

    def _changed(self, proposed: Tensor) -> Tensor:
        return self.displacement(_dense(proposed, self._step.weight), self._step)


class InnerWeightDecay(Displacing):
    r"""Adds $\eta\lambda\theta$ to the displacement, where mixins named later see it.

    Keras' own `weight_decay` shrinks the weights before the update, outside of whatever the mixins do. Alone
    the two are the same, unless the base itself looks at the weights (Ftrl, Lamb); under `LayerAdaptation`
    this one gives LAMB as its paper has it.

    Args:
        inner_weight_decay: λ, at least 0.
        exclude_from_inner_weight_decay: regular expressions; weights whose path one of them finds do not
            decay.

    Raises:
        ValueError: if λ is out of range, what is excluded is no sequence, or `weight_decay` is given, too.

    >>> optimizer = derive(keras.optimizers.SGD, InnerWeightDecay)(0.1, inner_weight_decay=0.5)
    >>> weight = keras.Variable([2.0])
    >>> optimizer.apply([ops.zeros(1)], [weight])  # 2 - 0.1 · 0.5 · 2
    >>> round(float(ops.convert_to_numpy(weight)[0]), 6)
    1.9

    Source: article 7094.
    """

    def __init__(
        self, *args, inner_weight_decay=0.01, exclude_from_inner_weight_decay: Sequence[str] = (), **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.inner_weight_decay = require_real("inner_weight_decay", inner_weight_decay, minimum=0.0)
        self.exclude_from_inner_weight_decay = _patterns(
            "exclude_from_inner_weight_decay", exclude_from_inner_weight_decay
        )
        require(
            self.weight_decay is None, "weight_decay", self.weight_decay, "None beside inner_weight_decay"
        )

    def displacement(self, proposed: Tensor, step: Step) -> Tensor:
        """Add the decay."""
        if not _found(self.exclude_from_inner_weight_decay, step.path):
            proposed = proposed + step.learning_rate * self.inner_weight_decay * step.weight
        return super().displacement(proposed, step)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "inner_weight_decay": self.inner_weight_decay,
            "exclude_from_inner_weight_decay": list(self.exclude_from_inner_weight_decay),
        }


class LayerAdaptation(Displacing):
    r"""Gives the displacement of each weight tensor the length $\eta\|\theta\|_2$, as LAMB does.

    Where a weight or its displacement is all zeros, as a bias is at first, the proposed displacement stays.

    Args:
        exclude_from_layer_adaptation: regular expressions; weights whose path one of them finds are left
            alone.

    Raises:
        ValueError: if what is excluded is no sequence.

    >>> optimizer, weight = derive(keras.optimizers.SGD, LayerAdaptation)(0.1), keras.Variable([3.0, 4.0])
    >>> optimizer.apply([ops.convert_to_tensor([700.0, 0.0])], [weight])  # a step of 0.1 · 5, not of 70
    >>> ops.convert_to_numpy(weight).tolist()
    [2.5, 4.0]

    Source: article 7094; You et al., arXiv 1904.00962, whose clipping of the norm is left out as in the
    article.
    """

    def __init__(self, *args, exclude_from_layer_adaptation: Sequence[str] = (), **kwargs):
        super().__init__(*args, **kwargs)
        self.exclude_from_layer_adaptation = _patterns(
            "exclude_from_layer_adaptation", exclude_from_layer_adaptation
        )

    def displacement(self, proposed: Tensor, step: Step) -> Tensor:
        """Rescale to the length that the weight and the learning rate prescribe."""
        if not _found(self.exclude_from_layer_adaptation, step.path):
            rate = step.learning_rate
            wanted, length = rate * _norm(step.weight, rate), _norm(proposed, rate)
            has_both = ops.logical_and(wanted > 0, length > 0)
            proposed = proposed * ops.where(has_both, wanted / ops.where(has_both, length, 1), 1)
        return super().displacement(proposed, step)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "exclude_from_layer_adaptation": list(self.exclude_from_layer_adaptation),
        }


class LazyRows(Displacing):
    """Moves only the rows of an embedding that the batch has looked up: those whose gradient is not all
    zeros.

    A row is a vector along the last axis. With moments from earlier batches an optimizer moves the others,
    too: here the second step would, for the momentum of the first.

    Args:
        lazy_rows: regular expressions; the weights whose path one of them finds are treated this way.
        freeze_moments: whether moments of rows that were not looked up stay as they are; otherwise they
            decay, as in the article.

    Raises:
        ValueError: if `lazy_rows` is no sequence.

    >>> optimizer = derive(keras.optimizers.SGD, LazyRows)(0.1, momentum=0.9, lazy_rows=["variable"])
    >>> embeddings = keras.Variable([[1.0], [1.0]])
    >>> for gradient in ([[1.0], [0.0]], [[0.0], [1.0]]):
    ...     optimizer.apply([ops.convert_to_tensor(gradient)], [embeddings])
    >>> [round(float(row[0]), 6) for row in ops.convert_to_numpy(embeddings)]
    [0.9, 0.9]

    Source: article 7094.
    """

    def __init__(self, *args, lazy_rows: Sequence[str] = (), freeze_moments=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.lazy_rows = _patterns("lazy_rows", lazy_rows)
        self.freeze_moments = freeze_moments

    def displacement(self, proposed: Tensor, step: Step) -> Tensor:
        """Set the displacement of rows without a gradient to zero."""
        if _found(self.lazy_rows, step.path):
            proposed = ops.where(_looked_up(step), proposed, 0)
        return super().displacement(proposed, step)

    def assign(self, variable: Variable, value: Tensor) -> None:
        """Assign; moments of rows without a gradient keep their value if they are to be frozen."""
        super().assign(variable, self._where_looked_up(variable, value, ops.convert_to_tensor(variable)))

    def assign_add(self, variable: Variable, value: Tensor) -> None:
        """Add; nothing to moments of rows without a gradient if they are to be frozen."""
        super().assign_add(variable, self._where_looked_up(variable, value, 0))

    def assign_sub(self, variable: Variable, value: Tensor) -> None:
        """Subtract; nothing from moments of rows without a gradient if they are to be frozen."""
        super().assign_sub(variable, self._where_looked_up(variable, value, 0))

    def _where_looked_up(self, variable: Variable, value: Tensor, otherwise: Tensor) -> Tensor:
        if not self._freezes(variable):
            return value
        return ops.where(_looked_up(self._step), _dense(value, self._step.weight), otherwise)

    def _freezes(self, variable: Variable) -> bool:
        step = self._step
        if not self.freeze_moments or step is None or self._is_weight(variable):
            return False
        return _found(self.lazy_rows, step.path) and tuple(variable.shape) == tuple(step.weight.shape)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "lazy_rows": list(self.lazy_rows),
            "freeze_moments": self.freeze_moments,
        }


class RatePerCopy(Displacing):
    """Gives each of many networks, stacked along the first axis of every weight, a learning rate of its own.

    Rates are compared in one run that way: the loss is the sum over the networks, of which none sees the
    others. `LayerAdaptation` takes the norm of each copy. What else looks at more than one entry (`clipnorm`,
    `global_clipnorm`, the bases Lamb and Adafactor) mixes the copies; Ftrl divides by the rate, which must
    not be 0 there. A weight that the copies share is not recognised.

    Args:
        copy_rates: what the learning rate is multiplied by, at least 0, one for each copy. A weight whose
            first axis is a multiple of their number has them over and over, in the order r₁ r₂ r₁ r₂.

    Attributes:
        copy_rates: the same as a variable of shape (copies,), which may be assigned between updates; within
            `fit` by `callbacks.HyperparameterSchedule`. Under a `LossScaleOptimizer` it is that of its
            `inner_optimizer`.

    Raises:
        ValueError: if a rate is out of range or there is none; if `weight_decay` is given, too, which would
            know nothing of them (`InnerWeightDecay` does); before the first update, if a weight has another
            number of copies.

    >>> optimizer = derive(keras.optimizers.SGD, RatePerCopy)(0.5, copy_rates=[1.0, 0.25])
    >>> weights = keras.Variable([[1.0, 1.0], [1.0, 1.0]])
    >>> optimizer.apply([ops.ones((2, 2))], [weights])
    >>> ops.convert_to_numpy(weights).tolist()
    [[0.5, 0.5], [0.875, 0.875]]
    """

    def __init__(self, *args, copy_rates: Sequence[float] = (1.0,), **kwargs):
        super().__init__(*args, **kwargs)
        has_rates = np.ndim(copy_rates) == 1 and len(copy_rates) > 0
        require(has_rates, "copy_rates", copy_rates, "a sequence with one rate for each copy")
        rates = [require_real("copy_rates", rate, minimum=0.0) for rate in copy_rates]
        require(self.weight_decay is None, "weight_decay", self.weight_decay, "None beside copy_rates")
        self.copy_rates = self.add_variable((len(rates),), name="copy_rates")
        self.copy_rates.assign(rates)

    def build(self, variables: list[Variable]) -> None:
        """Refuse weights that do not have these copies."""
        copies = self.copy_rates.shape[0]
        for variable in variables:
            has_copies = len(variable.shape) > 0 and variable.shape[0] % copies == 0
            wanted = f"a multiple of {copies} along its first axis, for as many copy_rates"
            require(has_copies, f"shape of {variable.path}", tuple(variable.shape), wanted)
        super().build(variables)

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Let the base optimizer take its step at a rate for each copy."""
        times = variable.shape[0] // self.copy_rates.shape[0]
        rates = ops.reshape(ops.tile(self.copy_rates, [times]), (-1,) + (1,) * (len(variable.shape) - 1))
        super().update_step(gradient, variable, ops.multiply(learning_rate, rates))

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "copy_rates": ops.convert_to_numpy(self.copy_rates).tolist()}


class Lookahead:
    r"""Every few updates, takes a part of the way from where it last was to where the optimizer has run.

    $\Theta\leftarrow\Theta+\alpha(\theta-\Theta)$, then $\theta\leftarrow\Theta$. The slow weights Θ start
    as the weights are before the first update; the moments of the optimizer are kept. Updates are counted,
    not batches: under `gradient_accumulation_steps` they are fewer.

    Args:
        slow_period: updates from one such step to the next, at least 1.
        slow_step_size: α, in (0, 1].

    Attributes:
        slow_weights: Θ, a list in the order of the weights, after the optimizer was built.

    Raises:
        ValueError: if an argument is out of range.

    >>> optimizer, weight = derive(keras.optimizers.SGD, Lookahead)(1.0, slow_period=2), keras.Variable(0.0)
    >>> for _ in range(3):
    ...     optimizer.apply([ops.convert_to_tensor(-1.0)], [weight])
    ...     print(float(ops.convert_to_numpy(weight)))  # in the second step it comes to 2, and goes half way
    1.0
    1.0
    2.0

    Source: article 7094; Zhang et al., arXiv 1907.08610.
    """

    def __init__(self, *args, slow_period=5, slow_step_size=0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.slow_period = require_integer("slow_period", slow_period, minimum=1)
        self.slow_step_size = require_real("slow_step_size", slow_step_size, above=0.0)
        require(self.slow_step_size <= 1, "slow_step_size", slow_step_size, "at most 1")

    def build(self, variables: list[Variable]) -> None:
        """Create the slow weights as copies of the weights."""
        if self.built:
            return
        super().build(variables)
        self.slow_weights = self.add_optimizer_variables(variables, "slow")
        for variable, slow in zip(variables, self.slow_weights, strict=True):
            if slow is not None:
                slow.assign(ops.copy(variable))

    def _backend_apply_gradients(self, grads, trainable_variables):
        # Once more, before anything moves: `fit` on TensorFlow builds an optimizer while it traces the step,
        # makes the variables and drops the assignments.
        is_first = ops.equal(self._iterations, 0)
        for variable, slow in zip(self._trainable_variables, self.slow_weights, strict=True):
            if slow is not None:
                here, there = ops.convert_to_tensor(variable), ops.convert_to_tensor(slow)
                slow.assign(ops.where(is_first, here, there))
        super()._backend_apply_gradients(grads, trainable_variables)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Runs once an update, also where gradients are accumulated, which `update_step` does, but not once a
        # weight.
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        is_due = ops.equal((self.iterations + 1) % self.slow_period, 0)
        for variable in trainable_variables:
            slow = self.slow_weights[self._get_variable_index(variable)]
            here, there = ops.convert_to_tensor(variable), ops.convert_to_tensor(slow)
            moved = there + self.slow_step_size * (here - there)
            slow.assign(ops.where(is_due, moved, there))
            variable.assign(ops.where(is_due, moved, here))

    def sync_slow_weights(self) -> None:
        """Set the weights to the slow ones, which the paper evaluates; call it when training is over.

        Raises:
            ValueError: if the optimizer has not been built.
        """
        require(self.built, "optimizer", f"<{type(self).__name__}>", "built")
        for variable, slow in zip(self._trainable_variables, self.slow_weights, strict=True):
            if slow is not None:
                variable.assign(slow)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "slow_period": self.slow_period,
            "slow_step_size": self.slow_step_size,
        }


MIXINS = (InnerWeightDecay, LayerAdaptation, LazyRows, RatePerCopy, Lookahead)


def derive(base: type, *mixins: type) -> type:
    """Return the optimizer class in which `mixins` act on the updates of `base`, in the order given.

    The class is registered with Keras, so that models compiled with it can be saved; to load one in another
    program, derive the same class there first. The same arguments give the same class.

    Args:
        base: a Keras optimizer class, such as `keras.optimizers.Adam`.
        mixins: of this module, each once. The first one sees what `base` proposes, the next one what that
            makes of it; `Lookahead` watches whole updates, wherever it stands.

    Raises:
        ValueError: if `base` is no such class, is derived itself, wraps another optimizer or is the class
            that Keras puts in its place on PyTorch; if there are no mixins, one is unknown, or one is given
            twice.

    >>> derive(keras.optimizers.SGD, Lookahead)(0.1, slow_period=2).get_config()["slow_period"]
    2
    """
    is_optimizer = isinstance(base, type) and issubclass(base, keras.optimizers.Optimizer)
    require(is_optimizer, "base", base, "a Keras optimizer class")
    require(not issubclass(base, MIXINS), "base", base, "not derived itself: give all mixins at once")
    wraps = issubclass(base, keras.optimizers.LossScaleOptimizer)
    require(not wraps, "base", base, "the optimizer inside: LossScaleOptimizer can wrap the derived one")
    # `type(optimizer)` is this one there. It moves all weights in one call, where no mixin would see them.
    one_by_one = not hasattr(base, "_parallel_update_step")
    require(one_by_one, "base", base, f"the public class, keras.optimizers.{base.__name__}")
    names = ", ".join(mixin.__name__ for mixin in MIXINS)
    require(
        len(mixins) > 0 and all(m in MIXINS for m in mixins), "mixins", mixins, f"some of {names} or of these"
    )
    require(len(set(mixins)) == len(mixins), "mixins", mixins, "different from each other")
    return _derived(base, mixins)


@lru_cache
def _derived(base: type, mixins: tuple[type, ...]) -> type:
    name = "_".join(part.__name__ for part in (base, *mixins))
    text = f"{base.__name__} with {', '.join(mixin.__name__ for mixin in mixins)}; see these."
    # The first mixin comes first in the method resolution order, and so does its `displacement`.
    derived = type(name, (*mixins, base), {"__doc__": text, "__module__": __name__})
    return keras.saving.register_keras_serializable(package="kexue")(derived)


@keras.saving.register_keras_serializable(package="kexue")
class AdaX(keras.optimizers.Optimizer):
    r"""Adam whose second moment remembers: $v_t=(1+\beta_2)v_{t-1}+\beta_2g_t^2$ (arXiv 2004.09740, article
    7387).

    What the step divides by, $\hat v_t=v_t/((1+\beta_2)^t-1)$, is kept instead of $v_t$, which overflows:
    $\hat v_t=\hat v_{t-1}+w_t(g_t^2-\hat v_{t-1})$ with $w_t=\beta_2/((1+\beta_2)^t-1)$, and
    $\theta\leftarrow\theta-\eta m_t/\sqrt{\hat v_t+\epsilon}$. The first moment has no bias correction.

    Args:
        learning_rate: η.
        beta_1: decay of the first moment, in [0, 1).
        beta_2: growth of the second one, above 0. For $t\ll1/\beta_2$ it is the plain mean of all squares;
            later it hardly changes.
        epsilon: ε, inside of the root as in the article.
        name, kwargs: as for every Keras optimizer.

    Raises:
        ValueError: if an argument is out of range.

    >>> AdaX(0.005, weight_decay=0.05).beta_2
    0.0001
    """

    def __init__(self, learning_rate=0.005, beta_1=0.9, beta_2=1e-4, epsilon=1e-12, name="adax", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1 = require_real("beta_1", beta_1, minimum=0.0)
        require(self.beta_1 < 1, "beta_1", beta_1, "below 1")
        self.beta_2 = require_real("beta_2", beta_2, above=0.0)
        self.epsilon = require_real("epsilon", epsilon, minimum=0.0)

    def build(self, variables: list[Variable]) -> None:
        """Create the moments, two tensors a weight."""
        if self.built:
            return
        super().build(variables)
        self._first_moments, self._second_moments = self.add_optimizer_variables(
            variables, ["first_moment", "second_moment"]
        )

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Tensor) -> None:
        """Move one weight."""
        dtype = variable.dtype
        gradient = _dense(gradient, ops.convert_to_tensor(variable))
        rate = ops.cast(learning_rate, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        # By expm1 and log1p: (1 + β₂)^t - 1 taken literally is off by 1e-4 in float32, and in the end
        # overflows.
        newest_share = self.beta_2 / ops.expm1(step * math.log1p(self.beta_2))
        index = self._get_variable_index(variable)
        first, second = self._first_moments[index], self._second_moments[index]
        self.assign_add(first, (1 - self.beta_1) * (gradient - first))
        self.assign_add(second, newest_share * (ops.square(gradient) - second))
        self.assign_sub(variable, rate * first / ops.sqrt(second + self.epsilon))

    def get_config(self) -> dict:
        """Return the arguments."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


def flush_accumulation(optimizer: keras.optimizers.Optimizer) -> int:
    """Update with the gradients that are waiting under `gradient_accumulation_steps`, by their mean.

    An epoch whose batches are no multiple of the steps leaves some waiting, and Keras adds those of the next
    epoch, or of another `fit`, to them. Call this at the end of an epoch. (Article 6794.)

    Args:
        optimizer: built; also one in a `LossScaleOptimizer`, as Keras wraps it for "mixed_float16".

    Returns:
        The number of gradients that were waiting; 0 if none were, or none are accumulated.

    Raises:
        ValueError: if the optimizer has not been built.

    >>> optimizer, weight = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4), keras.Variable([1.0])
    >>> for gradient in (1.0, 3.0):
    ...     optimizer.apply([ops.ones(1) * gradient], [weight])
    >>> flush_accumulation(optimizer), round(float(ops.convert_to_numpy(weight)[0]), 6)
    (2, 0.8)
    """
    require(optimizer.built, "optimizer", f"<{type(optimizer).__name__}>", "built")
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer  # to which gradients come with their scale taken off
    steps = optimizer.gradient_accumulation_steps
    waiting = int(ops.convert_to_numpy(optimizer._iterations)) % steps if steps else 0
    if not waiting:
        return 0
    # Keras adds a last gradient and divides by the steps: with (steps / waiting - 1) times the sum, a mean
    # comes out.
    accumulated = [
        None if total is None else optimizer.scale_loss((steps / waiting - 1) * ops.convert_to_tensor(total))
        for total in optimizer._accumulated_gradients
    ]
    optimizer._iterations.assign_add(steps - 1 - waiting)
    optimizer.apply(accumulated, optimizer._trainable_variables)
    return waiting


def _dense(tensor: Tensor, weight: Tensor) -> Tensor:
    """Return a tensor like the weight; what TensorFlow makes for an embedding are slices of one.

    A row that is looked up twice has two slices there, and the sum of their squares is not the square of
    their sum.
    """
    is_slices = hasattr(tensor, "dense_shape")
    return ops.zeros_like(weight) + tensor if is_slices else ops.cast(tensor, weight.dtype)


def _norm(tensor: Tensor, rate: Tensor) -> Tensor:
    """Return the norm, in the shape of the rate: of the whole tensor, or of each copy."""
    copies = ops.reshape(tensor, (math.prod(rate.shape), -1))
    return ops.reshape(ops.sqrt(ops.sum(ops.square(copies), axis=1)), rate.shape)


def _looked_up(step: Step) -> Tensor:
    return ops.any(step.gradient != 0, axis=-1, keepdims=True)


def _patterns(name: str, patterns: Sequence[str]) -> tuple[str, ...]:
    is_sequence = not isinstance(patterns, str) and all(isinstance(pattern, str) for pattern in patterns)
    require(is_sequence, name, patterns, "a sequence of regular expressions")
    return tuple(patterns)


def _found(patterns: Sequence[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)
