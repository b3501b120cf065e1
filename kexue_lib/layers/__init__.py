"""Layers that Keras does not have."""

from kexue_lib.layers.center_loss import CenterLoss
from kexue_lib.layers.masked import MaskedGlobalMaxPooling1D, masked_max, masked_mean, masked_softmax
from kexue_lib.layers.tied_dense import TiedDense

__all__ = [
    "CenterLoss",
    "MaskedGlobalMaxPooling1D",
    "TiedDense",
    "masked_max",
    "masked_mean",
    "masked_softmax",
]
