"""Convolution with a gate that mixes old and new (articles 5409, 6270 and 6906)."""

from __future__ import annotations

import keras
from keras import ops

from kexue_lib.layers.common import Shape, Tensor, registered, without_masked
from kexue_lib.validation import require, require_integer, require_real


@registered
class GatedConv1D(keras.layers.Layer):
    r"""A convolution over time whose gate says, for each number, whether to keep it or to take the new one.

    One convolution, of twice as many channels as the inputs have, gives the gate $g$ and the candidate $h$:

    $$y = x \otimes \sigma(g) + h \otimes \sigma(-g), \qquad [g, h] = \mathrm{Conv}(x)$$

    The output has the length of the inputs, whose ends are padded with zeros. Masked steps are zero as well,
    before and after, so that a padded sequence gives what it gives alone.

    Args:
        kernel_size: how many steps the convolution sees; an odd number looks equally far to both sides.
        dilation_rate: the distance between these steps.
        gate_dropout: the share of the entries of $g$ that training sets to zero, which opens the gate
            halfway; from 0 to less than 1.
        gate_noise: training multiplies the entries of $g$ by uniform numbers from 1 - gate_noise to
            1 + gate_noise.

    Call arguments:
        inputs: shape (batch, time, features).
        mask: Boolean, shape (batch, time); Keras passes the one that the inputs carry. None: all steps count.

    Returns:
        The shape of the inputs; 0 where masked.

    Raises:
        ValueError: if an argument is out of range; when called, if the mask is not of shape (batch, time).

    >>> layer = GatedConv1D(kernel_size=3, dilation_rate=2)
    >>> tuple(layer(ops.ones((2, 7, 4))).shape)
    (2, 7, 4)
    >>> layer.count_params(), 3 * 4 * 8 + 8
    (104, 104)

    Source: articles 6270 (this form), 5409 (dilation, noise) and 6906 (dropout of the gate).
    """

    def __init__(
        self,
        kernel_size: int = 3,
        dilation_rate: int = 1,
        gate_dropout: float = 0.0,
        gate_noise: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kernel_size = require_integer("kernel_size", kernel_size, minimum=1)
        self.dilation_rate = require_integer("dilation_rate", dilation_rate, minimum=1)
        self.gate_dropout = require_real("gate_dropout", gate_dropout, minimum=0)
        require(self.gate_dropout < 1, "gate_dropout", gate_dropout, "less than 1")
        self.gate_noise = require_real("gate_noise", gate_noise, minimum=0)
        self.dropout = keras.layers.Dropout(self.gate_dropout, dtype=self.dtype_policy)
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: Shape) -> None:
        """Create the convolution: its first channels are the gate's, the others the candidate's."""
        self.convolution = keras.layers.Conv1D(
            2 * input_shape[-1],
            self.kernel_size,
            padding="same",
            dilation_rate=self.dilation_rate,
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build(input_shape)

    def call(self, inputs: Tensor, mask: Tensor | None = None, training: bool = False) -> Tensor:
        """Return the mixture, shape (batch, time, features)."""
        inputs = without_masked(inputs, mask)
        gate, candidate = ops.split(self.convolution(inputs), 2, axis=-1)
        gate = self._disturbed(gate) if training else gate
        mixture = inputs * ops.sigmoid(gate) + candidate * ops.sigmoid(-gate)
        return without_masked(mixture, mask)

    def _disturbed(self, gate: Tensor) -> Tensor:
        if self.gate_noise:
            low, high = 1 - self.gate_noise, 1 + self.gate_noise
            gate = gate * keras.random.uniform(
                ops.shape(gate), low, high, dtype=gate.dtype, seed=self.seed_generator
            )
        return self.dropout(gate, training=True)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the inputs."""
        return tuple(input_shape)

    def get_config(self) -> dict:
        """Return the arguments."""
        names = ("kernel_size", "dilation_rate", "gate_dropout", "gate_noise")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
