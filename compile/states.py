"""What a variable of the Q/DQ float graph stands for while ToInteger walks it."""

from dataclasses import dataclass

import numpy as np
from tvm import relax


@dataclass(frozen=True)
class Image:
    """The network's float input before its quantization."""


@dataclass(frozen=True)
class Weight:
    """A quantized weight: its parameter and one shift per output channel."""

    name: str
    shift: np.ndarray


@dataclass(frozen=True)
class Int8:
    """A tensor of the integer graph (NHWC) and its shift."""

    var: relax.Var
    shift: int


@dataclass(frozen=True)
class Convolution:
    """A convolution that no quantize has closed yet."""

    x: Int8
    weight: Weight
    stride: int
    padding: int
    groups: int
    bias: str | None = None
    residual: Int8 | None = None
    relu: bool = False


@dataclass(frozen=True)
class Sum:
    """An add of two int8 tensors that no quantize has closed yet."""

    a: Int8
    b: Int8
    relu: bool = False


@dataclass(frozen=True)
class Concatenation:
    """A concat over channels that no quantize has closed yet; with one input, a change of shift."""

    inputs: tuple[Int8, ...]


@dataclass(frozen=True)
class Pool:
    """An average pool that no quantize has closed yet."""

    x: Int8
    kernel: int
    stride: int


@dataclass(frozen=True)
class Upsampled:
    """A nearest x2, and the size that a crop behind it leaves."""

    x: Int8
    height: int
    width: int


State = Image | Weight | Int8 | Convolution | Sum | Concatenation | Pool | Upsampled
