import keras
import numpy as np
import pytest
from keras import layers, ops

from kexue_lib.testing import LayerContractError, check_layer

registered = keras.saving.register_keras_serializable(package="kexue")

VECTORS = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=bool)
TOKENS = np.array([[1, 2, 0, 0], [3, 1, 1, 2], [1, 0, 0, 0]], dtype="int32")


@registered
class Scale(layers.Layer):
    """A layer that keeps the contract; each broken layer below breaks it in one place."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start
        self.supports_masking = True

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.start)
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer=initializer, name="scale")

    def call(self, inputs):
        return inputs * self.scale

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "start": self.start}


class NotRegistered(Scale):
    pass


@keras.saving.register_keras_serializable(package="another")
class RegisteredElsewhere(Scale):
    pass


@registered
class ConfigLeavesOut(Scale):
    def get_config(self):
        return layers.Layer.get_config(self)


@registered
class ConfigChangesValue(Scale):
    def get_config(self):
        return {**super().get_config(), "start": 1.0}


@registered
class ConfigIsNoJson(Scale):
    def get_config(self):
        return {**super().get_config(), "start": np.float32(self.start)}


@registered
class ConfigDrifts(Scale):
    def __init__(self, start=1.0, **kwargs):
        super().__init__(start=start, **kwargs)
        self.next_start = start + 1

    def get_config(self):
        return {**super().get_config(), "start": self.next_start}


@registered
class WrongComputeOutputShape(Scale):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 1)


@registered
class WrongComputeOutputShapeBesideSpec(WrongComputeOutputShape):
    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)


@registered
class WrongOutput(Scale):
    def call(self, inputs):
        return ops.sum(inputs * self.scale, axis=-1, keepdims=True)


@registered
class FixedBatch(Scale):
    def call(self, inputs):
        return ops.reshape(inputs * self.scale, (3, 4, 5))


@registered
class NoMaskSupport(Scale):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = False


@registered
class MaskDropped(Scale):
    def compute_mask(self, inputs, previous_mask=None):
        return None


@registered
class MaskInverted(Scale):
    def compute_mask(self, inputs, previous_mask=None):
        return None if previous_mask is None else ops.logical_not(previous_mask)


@registered
class AlwaysFloat32(Scale):
    def call(self, inputs):
        return ops.cast(inputs, "float32") * ops.cast(self.scale, "float32")


@registered
class OverflowsInHalf(Scale):
    def call(self, inputs):
        return super().call(inputs) * 1e4 * 1e4 / 1e4 / 1e4


@registered
class WeightFixedToFloat32(Scale):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), dtype="float32", name="scale")


@registered
class BlocksGradient(Scale):
    def call(self, inputs):
        return inputs * ops.stop_gradient(self.scale) + 0 * self.scale


@registered
class BlocksGradientKeepsStatistics(BlocksGradient):
    """What changes in a step is no trainable weight."""

    def build(self, input_shape):
        super().build(input_shape)
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

    def call(self, inputs, training=False):
        if training:
            self.steps.assign(self.steps + 1)
        return super().call(inputs)


@registered
class InfiniteLoss(Scale):
    def call(self, inputs, training=False):
        return super().call(inputs) / (0.0 if training else 1.0)


@registered
class InfiniteGradient(Scale):
    def call(self, inputs):
        return super().call(inputs) + 0.0 * ops.sqrt(ops.abs(self.scale - self.start))


@registered
class FailsWhenCompiled(Scale):
    def call(self, inputs):
        return inputs * float(ops.convert_to_numpy(self.scale)[0])


@registered
class ForgetsState(Scale):
    """A weight kept beside Keras, so that it is not saved."""

    def build(self, input_shape):
        super().build(input_shape)
        self.offset = np.random.default_rng().normal(size=input_shape[-1]).astype("float32")

    def call(self, inputs):
        return super().call(inputs) + ops.cast(self.offset, inputs.dtype)


@registered
class RandomInInference(Scale):
    def __init__(self, start=1.0, **kwargs):
        super().__init__(start=start, **kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return super().call(inputs) + keras.random.normal(
            ops.shape(inputs), dtype=inputs.dtype, seed=self.seed_generator
        )


class TestLayersThatKeepTheContract:
    def check(self, layer_class, init_kwargs, **arguments):
        check_layer(layer_class, init_kwargs, VECTORS, mask=MASK, **arguments)

    def test_our_own(self):
        self.check(Scale, {"start": 2.0}, expected_output_shape=(3, 4, 5))

    def test_dense(self):
        self.check(layers.Dense, {"units": 7, "activation": "tanh"}, expected_output_shape=(3, 4, 7))

    def test_layer_normalization(self):
        self.check(layers.LayerNormalization, {"epsilon": 0.01}, expected_output_shape=(3, 4, 5))

    def test_batch_normalization(self):
        self.check(layers.BatchNormalization, {"momentum": 0.5}, expected_output_shape=(3, 4, 5))

    def test_dropout_has_nothing_to_train(self):
        self.check(layers.Dropout, {"rate": 0.5}, expected_output_shape=(3, 4, 5))

    def test_embedding_makes_a_mask(self):
        arguments = {"input_dim": 5, "output_dim": 6, "mask_zero": True}
        check_layer(layers.Embedding, arguments, TOKENS, expected_output_shape=(3, 4, 6), expected_mask=MASK)

    def test_pooling_ends_the_mask_and_several_inputs(self):
        check_layer(layers.Concatenate, {"axis": -1}, [VECTORS, VECTORS], expected_output_shape=(3, 4, 10))


@pytest.mark.filterwarnings("ignore")  # Keras warns about several of them, too
@pytest.mark.parametrize(
    ("layer_class", "message"),
    [
        (NotRegistered, r"^registered: as 'NotRegistered'; decorate it with .*package=\"kexue\""),
        (RegisteredElsewhere, "^registered: as 'another>RegisteredElsewhere'"),
        (ConfigLeavesOut, "^config: get_config leaves out 'start'"),
        (ConfigChangesValue, r"^config: 'start' is 1\.0, given was 2\.0"),
        (ConfigIsNoJson, "^config: .* failed with TypeError: .*not JSON serializable"),
        (ConfigDrifts, "^config: .* came back from JSON as"),
        (WrongComputeOutputShape, r"^shape: .* has \(None, 4, 6\), expected \(None, 4, 5\)"),
        (WrongComputeOutputShapeBesideSpec, r"^shape: compute_output_shape gives \(None, 4, 6\), expected"),
        (WrongOutput, r"^shape: the output for 3 examples has \(3, 4, 1\), expected \(3, 4, 5\)"),
        (FixedBatch, "^shape: calling the layer on 1 examples failed"),
        (NoMaskSupport, "^mask: the layer does not set supports_masking"),
        (MaskDropped, "^mask: the output carries no mask"),
        (MaskInverted, "^mask: the output carries another mask than expected"),
        (AlwaysFloat32, "^precision: with policy mixed_float16 the output has dtype float32"),
        (OverflowsInHalf, "^precision: with policy mixed_float16 the output is not finite"),
        (BlocksGradient, "^training: a step with jit_compile=False changes no trainable weight"),
        (BlocksGradientKeepsStatistics, "^training: a step .* changes no trainable weight"),
        (InfiniteLoss, "^training: the loss is"),
        (InfiniteGradient, "^training: weights are not finite"),
        (ForgetsState, "^saving: the loaded model gives another result"),
        (RandomInInference, "^compiled: predict .* gives another result"),
    ],
)
def test_broken_layers_are_rejected_by_clause(layer_class, message):
    with pytest.raises(LayerContractError, match=message):
        check_layer(layer_class, {"start": 2.0}, VECTORS, expected_output_shape=(3, 4, 5), mask=MASK)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="float64 is behind a global switch of JAX")
def test_weight_of_fixed_dtype_is_rejected():
    with pytest.raises(
        LayerContractError, match=r"^precision: with policy float64 .*scale has dtype float32"
    ):
        check_layer(WeightFixedToFloat32, {"start": 2.0}, VECTORS, expected_output_shape=(3, 4, 5))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs eagerly")
def test_layer_that_cannot_be_compiled_is_rejected():
    with pytest.raises(LayerContractError, match=r"^(shape|training|compiled): .* failed with"):
        check_layer(FailsWhenCompiled, {"start": 2.0}, VECTORS, expected_output_shape=(3, 4, 5))
