"""What a tensor of a foreign ONNX graph stands for while it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.foreign.network import NO_CLIP, Kind, Pair, Tensor


@dataclass(frozen=True)
class Picture:
    """The float input before its quantization."""


@dataclass(frozen=True)
class Quantized:
    """An int8 tensor of the network. `flat`: the ONNX sees it as (1, C · H · W)."""

    tensor: Tensor
    flat: bool = False


@dataclass(frozen=True)
class Weights:
    """Integers of the model itself, with one scale or one for each entry of `axis`."""

    integers: NDArray[Any]
    scale: NDArray[np.float32]
    axis: int


@dataclass(frozen=True)
class Floats:
    """Real numbers of the model itself."""

    values: NDArray[Any]


@dataclass(frozen=True)
class Open:
    """A layer that no QuantizeLinear has closed yet: given the output's scale and its clip, it is there.

    `low`, `high`: what a ReLU or Clip behind it has cut off, as real numbers. `clips`: whether the layer itself can;
    `add_bias` makes the same layer with a bias, of a matrix product.
    """

    make: Callable[[float, Pair], Kind]
    inputs: tuple[str, ...]
    shape: tuple[int, int, int, int]
    node: str
    low: float = -np.inf
    high: float = np.inf
    clips: bool = False
    flat: bool = False
    add_bias: Callable[[NDArray[np.float64]], "Open"] | None = None

    def clip(self, scale: float) -> Pair:
        """The cut on the output's grid: rounding is monotonic, so it may come after it."""
        return on_grid(self.low, scale), on_grid(self.high, scale)


def on_grid(value: float, scale: float) -> int:
    """The int8 that QuantizeLinear makes of a real number, in float32 as ONNX defines; an infinite one saturates."""
    return int(np.clip(np.rint(np.float32(value) / np.float32(scale)), *NO_CLIP))


@dataclass(frozen=True)
class Largest:
    """The index of the largest channel; only an output can be that."""

    tensor: Tensor


State = Picture | Quantized | Weights | Floats | Open | Largest
