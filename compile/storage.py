"""How an int8 tensor of the integer graph lies in memory between two kernels.

A value q is the byte q + offset. A dot product of bytes takes one unsigned operand, so tensors lie as unsigned bytes:
as they are where no value is negative (behind a ReLU), else with 128 added. Around a tensor that a convolution pads is
a border of real zeros, which its producer writes, so that no convolution tests bounds. What `main` returns lies as it
is, int8 and without a border.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from compile.certify import LayerCall
from compile.layers import (
    AddLayer,
    AveragePool,
    ChannelArgmax,
    ConcatLayer,
    ConvLayer,
    FlattenMaps,
    Layer,
    Upsample2x,
)
from quant.arith import INT8_MIN, PAD_PIXEL


@dataclass(frozen=True)
class Storage:
    """Dtype of the bytes, what is added to every value, and pixels of border on every side."""

    dtype: str
    offset: int = 0
    border: int = 0

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Of the buffer of a tensor (1, H, W, C)."""
        batch, height, width, channels = shape
        return (batch, height + 2 * self.border, width + 2 * self.border, channels)

    def values(self, stored: NDArray[np.uint8] | NDArray[np.int8]) -> NDArray[np.int8]:
        """The tensor int8 (1, H, W, C) that a buffer holds; a plain one may be of any shape and type."""
        if self == PLAIN:
            return np.array(stored)
        inner = slice(self.border, -self.border or None)
        return (stored[:, inner, inner].astype(np.int16) - self.offset).astype(np.int8)

    def stored(self, values: NDArray[np.int8]) -> NDArray[np.uint8] | NDArray[np.int8]:
        """The inverse of `values`."""
        width = [(0, 0), (self.border, self.border), (self.border, self.border), (0, 0)]
        return (np.pad(values, width).astype(np.int16) + self.offset).astype(self.dtype)


PICTURE = Storage("uint8", PAD_PIXEL)  # a pixel p is the value p - 128
PLAIN = Storage("int8")  # what main returns


def reads_plain(layer: Layer) -> bool:
    """Whether a layer takes feature maps as `main` returns them. What it makes of them is no feature map."""
    return isinstance(layer, ChannelArgmax | FlattenMaps)


def choose_storage(calls: Sequence[LayerCall], outputs: Sequence[relax.Expr]) -> dict[relax.Var, Storage]:
    """The storage of every feature map of an integer module, given its layers and what `main` returns."""
    padding = padding_of(calls)
    read_plain = {
        *outputs,
        *(argument for call in calls if reads_plain(call.layer) for argument in call.arguments),
    }
    convolved = {call.arguments[0] for call in calls if isinstance(call.layer, ConvLayer)}
    storage: dict[relax.Var, Storage] = {}
    for call in calls:
        if reads_plain(call.layer):
            continue
        if call.var in read_plain and call.var not in convolved:
            storage[call.var] = PLAIN
        else:
            offset = 0 if is_unsigned(call, storage) else -INT8_MIN
            storage[call.var] = Storage("uint8", offset, padding.get(call.var, 0))
    return storage


def padding_of(calls: Sequence[LayerCall]) -> dict[relax.Expr, int]:
    """By how many pixels the convolutions that read a tensor pad it at most."""
    padding: dict[relax.Expr, int] = {}
    for call in calls:
        if isinstance(call.layer, ConvLayer):
            padding[call.arguments[0]] = max(padding.get(call.arguments[0], 0), call.layer.padding)
    return padding


def is_unsigned(call: LayerCall, storage: Mapping[relax.Var, Storage]) -> bool:
    """Whether no value of a layer's output can be negative."""
    if isinstance(call.layer, ConvLayer | AddLayer):
        return call.layer.relu
    if isinstance(call.layer, Upsample2x | ConcatLayer | AveragePool):
        return all(storage[argument].offset == 0 and storage[argument].dtype == "uint8" for argument in call.arguments)
    return False
