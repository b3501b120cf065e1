"""Layers that Keras does not have."""

from kexue_lib.layers.attention import MultiHeadAttention
from kexue_lib.layers.center_loss import CenterLoss
from kexue_lib.layers.convolution import GatedConv1D
from kexue_lib.layers.masked import (
    AttentionPooling1D,
    MaskedGlobalMaxPooling1D,
    masked_max,
    masked_mean,
    masked_softmax,
)
from kexue_lib.layers.ordered_neurons import OrderedNeuronsLSTMCell, cumax, levels
from kexue_lib.layers.relative_bias import RelativeBias
from kexue_lib.layers.rotary import rotate
from kexue_lib.layers.sparse_attention import AtrousSelfAttention, LocalSelfAttention, SparseSelfAttention
from kexue_lib.layers.synthesizer import SynthesizerAttention
from kexue_lib.layers.tied_dense import TiedDense

__all__ = [
    "AtrousSelfAttention",
    "AttentionPooling1D",
    "CenterLoss",
    "GatedConv1D",
    "LocalSelfAttention",
    "MaskedGlobalMaxPooling1D",
    "MultiHeadAttention",
    "OrderedNeuronsLSTMCell",
    "RelativeBias",
    "SparseSelfAttention",
    "SynthesizerAttention",
    "TiedDense",
    "cumax",
    "levels",
    "masked_max",
    "masked_mean",
    "masked_softmax",
    "rotate",
]
