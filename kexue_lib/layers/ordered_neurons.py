"""An LSTM whose neurons have an order: the higher, the longer they remember (article 6621)."""

from __future__ import annotations

import keras
from keras import ops

from kexue_lib.layers.common import Tensor, mask_of_steps, registered
from kexue_lib.precision import at_least_float32
from kexue_lib.validation import require, require_integer


def cumax(logits: Tensor, *, from_right: bool = False) -> Tensor:
    r"""Return the cumulative sum of the softmax, $\overrightarrow{cs}(p)_k = \sum_{j \le k} p_j$: a step.

    It never falls and ends at 1. With `from_right` the sum is $\overleftarrow{cs}(p)_k = \sum_{j \ge k} p_j$:
    it starts at 1 and never rises. Both are computed in float32 at least.

    Args:
        logits: shape (..., levels), floating point.
        from_right: whether to sum from the last level.

    Returns:
        The shape and dtype of the logits.

    >>> ops.convert_to_numpy(cumax(ops.zeros((1, 4)))).tolist()
    [[0.25, 0.5, 0.75, 1.0]]
    >>> ops.convert_to_numpy(cumax(ops.zeros((1, 4)), from_right=True)).tolist()
    [[1.0, 0.75, 0.5, 0.25]]

    Source: article 6621; Shen et al., arXiv 1810.09536.
    """
    logits = ops.convert_to_tensor(logits)
    probabilities = ops.softmax(at_least_float32(logits), axis=-1)
    step = ops.cumsum(probabilities, axis=-1)
    return ops.cast(1 - step + probabilities if from_right else step, logits.dtype)


@registered
class OrderedNeuronsLSTMCell(keras.layers.Layer):
    r"""One step of the ON-LSTM, for `keras.layers.RNN`.

    The neurons stand in levels, `chunk_size` of them in each. Beside the gates $f, i, o$ and the candidate
    $\hat c$ of the LSTM there are two master gates, one number a level, repeated for its neurons. The master
    forget gate says from which level upwards the history stays, the master input gate up to which level the
    new input gets:

    $$\begin{aligned}
    \tilde f_t &= \overrightarrow{cs}(\mathrm{softmax}(W_{\tilde f} x_t + U_{\tilde f} h_{t-1}
        + b_{\tilde f})) \\
    \tilde \imath_t &= \overleftarrow{cs}(\mathrm{softmax}(W_{\tilde \imath} x_t + U_{\tilde \imath} h_{t-1}
        + b_{\tilde \imath})), \qquad \omega_t = \tilde f_t \circ \tilde \imath_t \\
    c_t &= \omega_t \circ (f_t \circ c_{t-1} + i_t \circ \hat c_t) + (\tilde f_t - \omega_t) \circ c_{t-1}
        + (\tilde \imath_t - \omega_t) \circ \hat c_t, \qquad h_t = o_t \circ \tanh c_t
    \end{aligned}$$

    The paper has $1 - \overrightarrow{cs}$ as the master input gate; the two differ by the softmax itself.
    Where both master gates are 1 this is the LSTM, whose weights are the first columns: $i, f, \hat c, o$ in
    Keras' order, `units` each, then $\tilde f$ and $\tilde \imath$, `units / chunk_size` each. The weights
    start as those of Keras' `LSTMCell` do. `levels` reads the depth of every step. (On PyTorch Keras takes
    products of float64 in float32, and the cell is no better than that.)

    Args:
        units: the number of neurons.
        chunk_size: how many neurons share a level; a divisor of `units`, which leaves at least two levels.

    Call arguments:
        inputs: shape (batch, features).
        states: $h_{t-1}$ and $c_{t-1}$, shape (batch, units) each.

    Returns:
        $h_t$, shape (batch, units), and the list of $h_t$ and $c_t$.

    Raises:
        ValueError: if an argument is not a whole number of at least 1, or `chunk_size` does not divide
            `units` into two levels or more.

    >>> cell = OrderedNeuronsLSTMCell(units=6, chunk_size=2)
    >>> tuple(keras.layers.RNN(cell, return_sequences=True)(ops.ones((2, 5, 3))).shape)
    (2, 5, 6)
    >>> cell.count_params(), (4 * 6 + 2 * 3) * (3 + 6 + 1)
    (300, 300)

    Source: article 6621; Shen et al., "Ordered neurons: integrating tree structures into recurrent neural
    networks", arXiv 1810.09536.
    """

    def __init__(self, units: int, chunk_size: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.units = require_integer("units", units, minimum=1)
        self.chunk_size = require_integer("chunk_size", chunk_size, minimum=1)
        has_levels = units % chunk_size == 0 and units > chunk_size
        require(has_levels, "chunk_size", chunk_size, f"a divisor of units, {units}, and less than that")
        self.state_size = [self.units, self.units]
        self.output_size = self.units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the kernel (features, columns), the recurrent kernel (units, columns) and the bias."""
        masters = self.units // self.chunk_size
        columns = 4 * self.units + 2 * masters
        self.kernel = self.add_weight(shape=(input_shape[-1], columns), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, columns), initializer="orthogonal", name="recurrent_kernel"
        )
        self.bias = self.add_weight(shape=(columns,), initializer=self._initial_bias, name="bias")

    def _initial_bias(self, shape: tuple[int], dtype: str | None = None) -> Tensor:
        """Return 1 for the forget gate, as Keras does, and 0 elsewhere."""
        column = ops.arange(shape[0])
        is_forget = ops.logical_and(column >= self.units, column < 2 * self.units)
        return ops.cast(is_forget, dtype)

    def call(self, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the output, shape (batch, units), and the new states."""
        hidden, memory = states
        columns, masters = self._columns(inputs, hidden)
        # A row for each level, so that a master gate, of shape (batch, levels, 1), reaches its whole chunk.
        # `repeat` would not compile on TensorFlow: XLA must know the shape of its gradient.
        rows = (self.units // self.chunk_size, self.chunk_size)
        columns, memory = ops.reshape(columns, (-1, 4, *rows)), ops.reshape(memory, (-1, *rows))
        gates = ops.sigmoid(columns)  # of the candidate as well: one call costs less than three
        master_forget, master_input = (gate[..., None] for gate in _master_gates(masters))
        overlap = master_forget * master_input
        # ω i + (ĩ - ω) and ω f + (f̃ - ω), with one product less each.
        admit = master_input + overlap * (gates[:, 0] - 1)
        keep = master_forget + overlap * (gates[:, 1] - 1)
        memory = keep * memory + admit * ops.tanh(columns[:, 2])
        hidden = gates[:, 3] * ops.tanh(memory)
        hidden, memory = (ops.reshape(state, (-1, self.units)) for state in (hidden, memory))
        return hidden, [hidden, memory]

    def master_gates(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the master gates of a step, or of all steps at once.

        Args:
            inputs: $x_t$, shape (..., features).
            hidden: $h_{t-1}$, shape (..., units).

        Returns:
            $\tilde f_t$ and $\tilde \imath_t$, shape (..., units / chunk_size) each.
        """
        return _master_gates(self._columns(inputs, hidden)[1])

    def _columns(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the gates and the candidate are functions of, and what the master gates are."""
        columns = ops.matmul(inputs, self.kernel) + ops.matmul(hidden, self.recurrent_kernel) + self.bias
        return columns[..., : 4 * self.units], columns[..., 4 * self.units :]

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        """Return zeros, shape (batch, units), for h and for c."""
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in self.state_size]

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "units": self.units, "chunk_size": self.chunk_size}


def _master_gates(logits: Tensor) -> tuple[Tensor, Tensor]:
    forget, admit = ops.split(logits, 2, axis=-1)
    return cumax(forget), cumax(admit, from_right=True)


def levels(cell: OrderedNeuronsLSTMCell, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return from which level upwards the cell keeps its history, at every step of a sequence.

    A master forget gate that is a step from level $d$ on is read as $d$, a soft one as the mean of $d$
    under its softmax:

    $$d_t = n + 1 - \sum_{k=1}^n \tilde f_{t,k}, \qquad n = \text{units} / \text{chunk size}$$

    (The paper's $n - \sum_k \tilde f_{t,k}$ is one less; which step has the largest is the same.) A large
    level says that the step needs little of what came before: a new constituent starts.

    Args:
        cell: a cell that is built; for the layer of a model, `layer.cell`.
        inputs: what the layer gets, shape (batch, time, features).
        mask: Boolean, shape (batch, time), as the layer gets it.

    Returns:
        Shape (batch, time), float32 at least, from 1 to n; 0 where masked.

    Raises:
        ValueError: if the inputs do not have three axes or the mask does not have the first two of them.

    >>> cell = OrderedNeuronsLSTMCell(units=4)
    >>> cell.build((None, 3))
    >>> cell.set_weights([0 * weight for weight in cell.get_weights()])  # a softmax of 1/4 at each level
    >>> ops.convert_to_numpy(levels(cell, ops.ones((1, 2, 3)))).tolist()
    [[2.5, 2.5]]

    Source: article 6621, "as a parser"; Shen et al., arXiv 1810.09536, section 5.2.
    """
    inputs = ops.convert_to_tensor(inputs)
    require(len(inputs.shape) == 3, "inputs", f"shape {inputs.shape}", "of shape (batch, time, features)")
    if mask is not None:
        mask = mask_of_steps(mask, inputs)
    # Where a step is masked the layer repeats its output, so the output is h at every step, masked or not.
    after = keras.layers.RNN(cell, return_sequences=True, dtype=cell.dtype_policy)(inputs, mask=mask)
    before = ops.pad(after[:, :-1], ((0, 0), (1, 0), (0, 0)))
    forget = at_least_float32(cell.master_gates(inputs, before)[0])
    depth = forget.shape[-1] + 1 - ops.sum(forget, axis=-1)
    return depth if mask is None else ops.where(mask, depth, 0)
