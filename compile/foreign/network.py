"""The integer network that a foreign model becomes: layers in order, each with its numbers.

Tensors are int8 NHWC with a scale S, real = q · S; a vector (1, C) is (1, 1, 1, C). What a layer computes is defined in
docs/integer.md, sections 4 to 6 and 10, by `quant`'s functions in reference.py, and again in Relax in
relax_writer.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]  # top, left, bottom, right
NO_CLIP = (-128, 127)


@dataclass(frozen=True)
class Tensor:
    """An int8 tensor NHWC and its scale, a float32 number."""

    name: str
    shape: tuple[int, int, int, int]
    scale: float


@dataclass(frozen=True, eq=False)
class Convolution:
    """weight OHWI, bias on the accumulator's grid; acc · m / 2^n per output channel, then clipped to `clip`."""

    weight: Int8
    bias: Int64
    stride: Pair
    pads: Pads
    dilation: Pair
    groups: int
    m: Int64
    n: Int64
    clip: Pair = NO_CLIP


@dataclass(frozen=True, eq=False)
class Table:
    """Entry q + 128 of int8[256]."""

    values: Int8


@dataclass(frozen=True)
class Sum:
    """Σ q_i · m_i / 2^n, rounded once; with one input a change of scale."""

    m: tuple[int, ...]
    n: int
    clip: Pair = NO_CLIP


@dataclass(frozen=True)
class Concat:
    """Over the channels, each input times m_i / 2^n_i."""

    m: tuple[int, ...]
    n: tuple[int, ...]


@dataclass(frozen=True)
class MaxPool:
    """What is padded is never the largest."""

    kernel: Pair
    stride: Pair
    pads: Pads


@dataclass(frozen=True)
class MeanPool:
    """The sum over a window, what is padded being 0, times the exact rational `numerator` / `denominator`; or times
    m / 2^n where the scales are no powers of two.
    """

    kernel: Pair
    stride: Pair
    pads: Pads
    numerator: int = 0
    denominator: int = 0
    m: int = 0
    n: int = 0


@dataclass(frozen=True)
class Nearest2x:
    """Every pixel to 2x2."""


@dataclass(frozen=True)
class Bilinear2x:
    """Half-pixel centres, edges repeated: weights 9, 3, 3, 1 of 16; the sum of 16ths times m / 2^n."""

    m: int
    n: int


@dataclass(frozen=True)
class Slice:
    """From `begin` to `end` on each of the four axes NHWC."""

    begin: tuple[int, int, int, int]
    end: tuple[int, int, int, int]


@dataclass(frozen=True)
class Pad:
    """The input times m / 2^n; the integer `value` before and after it on each of the four axes NHWC."""

    before: tuple[int, int, int, int]
    after: tuple[int, int, int, int]
    value: int
    m: int
    n: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor of the model itself."""

    value: Int8


Kind = Convolution | Table | Sum | Concat | MaxPool | MeanPool | Nearest2x | Bilinear2x | Slice | Pad | Constant


@dataclass(frozen=True, eq=False)
class Layer:
    """`node`: the ONNX node that it comes from."""

    kind: Kind
    inputs: tuple[str, ...]
    output: Tensor
    node: str


@dataclass(frozen=True)
class Output:
    """An output of the model: the int8 tensor `tensor` as real numbers, or its largest channel's index, int64.

    `shape` is that of the ONNX, NCHW.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    argmax: bool = False


@dataclass(frozen=True)
class Network:
    """`input_shape` NCHW: the picture, float32, becomes the tensor `input` by clip(round(x / scale))."""

    input_name: str
    input_shape: tuple[int, int, int, int]
    input: Tensor
    layers: tuple[Layer, ...]
    outputs: tuple[Output, ...]

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All of them by name."""
        return {self.input.name: self.input, **{layer.output.name: layer.output for layer in self.layers}}
