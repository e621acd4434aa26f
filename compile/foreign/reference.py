"""The reference arithmetic of a foreign network, in numpy, by `quant`'s rules: what the compiled model must equal."""

from collections.abc import Iterator
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.foreign.network import (
    Bilinear2x,
    Concat,
    Constant,
    Convolution,
    Int8,
    Kind,
    MaxPool,
    MeanPool,
    Nearest2x,
    Network,
    Pad,
    Pads,
    Slice,
    Sum,
    Table,
)
from quant.arith import INT8_MAX, INT8_MIN, Int64, convolve, divide_rational, saturate
from quant.fixed_point import scale, scale_sum


def run(network: Network, picture: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Outputs by name for an input float32 NCHW: float32, or int64 for an argmax."""
    tensors = {network.input.name: quantized(picture, network.input.scale)}
    for layer in network.layers:
        tensors[layer.output.name] = compute(layer.kind, *(tensors[name] for name in layer.inputs))
    results: dict[str, NDArray[Any]] = {}
    for output in network.outputs:
        value, of = tensors[output.tensor].transpose(0, 3, 1, 2), network.tensors[output.tensor].scale
        exact = value.argmax(axis=1) if output.argmax else value.astype(np.float32) * np.float32(of)
        results[output.name] = exact.reshape(output.shape)
    return results


def quantized(picture: NDArray[np.float32], of: float) -> Int8:
    """int8 NHWC of float32 NCHW, as ONNX defines QuantizeLinear."""
    rounded = np.rint(picture / np.float32(of))
    return np.clip(rounded, INT8_MIN, INT8_MAX).astype(np.int8).transpose(0, 2, 3, 1)


@singledispatch
def compute(kind: Kind, *inputs: Int8) -> Int8:
    """A layer's output."""
    raise NotImplementedError(type(kind).__name__)


@compute.register
def _(kind: Convolution, x: Int8) -> Int8:
    total = kind.bias
    for part, weight in taps(padded(x, kind.pads, 0), kind):
        total = total + convolve(part, weight, groups=kind.groups)
    return np.clip(scale(total, kind.m, kind.n), *kind.clip)


@compute.register
def _(kind: Table, x: Int8) -> Int8:
    return kind.values[x.astype(np.int64) - INT8_MIN]


@compute.register
def _(kind: Sum, *inputs: Int8) -> Int8:
    return np.clip(scale_sum(inputs, kind.m, kind.n), *kind.clip)


@compute.register
def _(kind: Concat, *inputs: Int8) -> Int8:
    return np.concatenate([scale(x, m, n) for x, m, n in zip(inputs, kind.m, kind.n, strict=True)], axis=3)


@compute.register
def _(kind: MaxPool, x: Int8) -> Int8:
    return windows(padded(x, kind.pads, INT8_MIN), kind.kernel, kind.stride).max(axis=(-2, -1))


@compute.register
def _(kind: MeanPool, x: Int8) -> Int8:
    total = windows(padded(x, kind.pads, 0), kind.kernel, kind.stride).sum(axis=(-2, -1), dtype=np.int64)
    if kind.denominator:
        return saturate(divide_rational(total * kind.numerator, kind.denominator)).astype(np.int8)
    return scale(total, kind.m, kind.n)


@compute.register
def _(kind: Nearest2x, x: Int8) -> Int8:
    return x.repeat(2, axis=1).repeat(2, axis=2)


@compute.register
def _(kind: Bilinear2x, x: Int8) -> Int8:
    return scale(_doubled(_doubled(x.astype(np.int64), axis=1), axis=2), kind.m, kind.n)


def _doubled(x: Int64, axis: int) -> Int64:
    """Twice as long, in quarters: 3 parts of the near pixel, 1 of the one beyond it."""
    count = x.shape[axis]
    before = x.take(np.maximum(np.arange(count) - 1, 0), axis=axis)
    after = x.take(np.minimum(np.arange(count) + 1, count - 1), axis=axis)
    pairs = np.stack([3 * x + before, 3 * x + after], axis=axis + 1)
    return pairs.reshape([size * 2 if place == axis else size for place, size in enumerate(x.shape)])


@compute.register
def _(kind: Slice, x: Int8) -> Int8:
    return x[tuple(slice(begin, end) for begin, end in zip(kind.begin, kind.end, strict=True))]


@compute.register
def _(kind: Pad, x: Int8) -> Int8:
    widths = list(zip(kind.before, kind.after, strict=True))
    return np.pad(scale(x, kind.m, kind.n), widths, constant_values=kind.value)


@compute.register
def _(kind: Constant) -> Int8:
    return kind.value


def padded(x: Int8, pads: Pads, value: int) -> Int8:
    """With rows and columns of a value around it."""
    top, left, bottom, right = pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def windows(x: Int8, kernel: tuple[int, int], stride: tuple[int, int]) -> Int8:
    """(1, h, w, C, kh, kw)."""
    every = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))
    return every[:, :: stride[0], :: stride[1]]


def taps(x: Int8, kind: Convolution) -> Iterator[tuple[Int8, Int8]]:
    """What each place of the kernel sees of the padded input, and the weights there, (O, 1, 1, C / groups): the places
    of a large or dilated kernel all at once would be as many copies of the input.
    """
    _, rows, columns, _ = kind.weight.shape
    height, width = (
        (size - (count - 1) * dilation - 1) // stride * stride + 1
        for size, count, dilation, stride in zip(x.shape[1:3], (rows, columns), kind.dilation, kind.stride, strict=True)
    )
    for row, column in np.ndindex(rows, columns):
        top, left = row * kind.dilation[0], column * kind.dilation[1]
        seen = x[:, top : top + height : kind.stride[0], left : left + width : kind.stride[1]]
        yield seen, kind.weight[:, row : row + 1, column : column + 1]
