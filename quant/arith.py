"""The integer arithmetic in numpy: the reference that fake quantization, compiled code and ONNX Runtime answer to.

Values: real = q · 2^-shift. Activations are int8 NHWC on one shift per tensor, weights int8 OHWI on one shift per
output channel, biases int32 on the accumulator's shift. Inside, everything is int64. docs/integer.md derives the rules.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quant.errors import QuantError

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

INT8_MIN = -128
INT8_MAX = 127
WEIGHT_MAX = 127
ACCUMULATOR_LIMIT = 1 << 24  # every integer below it is a float32: sums under it are exact in any order
INPUT_SHIFT = 7
PAD_PIXEL = 128  # the pixel that stands for real 0
MAX_RIGHT_SHIFT = 30


def quantize_pixels(pixels: NDArray[np.uint8]) -> Int8:
    """uint8 picture of any shape -> int8, q = p - 128, on shift INPUT_SHIFT."""
    if pixels.dtype != np.uint8:
        raise QuantError(f"pixels must be uint8, are {pixels.dtype}; convert the picture before")
    return (pixels.astype(np.int16) - PAD_PIXEL).astype(np.int8)


def divide_half_even(a: ArrayLike, n: ArrayLike) -> Int64:
    """a / 2^n rounded half to even, in integers. n: int or array that broadcasts, 0 <= n <= 30 (else QuantError)."""
    value, right = np.asarray(a, np.int64), np.asarray(n, np.int64)
    if right.size and (right.min() < 0 or right.max() > MAX_RIGHT_SHIFT):
        raise QuantError(
            f"a right shift must be in 0..{MAX_RIGHT_SHIFT}, is {right.min()}..{right.max()}; choose shifts anew"
        )
    one_if_shifted = np.minimum(right, 1)
    below_half = ((np.int64(1) << right) >> 1) - one_if_shifted
    odd = (value >> right) & one_if_shifted
    return (value + below_half + odd) >> right


def divide_rational(a: Int64, denominator: int) -> Int64:
    """a / denominator, any positive integer, rounded half to even, in integers."""
    quotient, remainder = np.divmod(a, denominator)
    up = (2 * remainder > denominator) | ((2 * remainder == denominator) & (quotient % 2 == 1))
    return quotient + up


def saturate(value: Int64) -> Int64:
    """Clips to the int8 range; the dtype stays."""
    return np.clip(value, INT8_MIN, INT8_MAX)


def requantize(acc: ArrayLike, acc_shift: ArrayLike, out_shift: int) -> Int8:
    """Integers on `acc_shift` (int, or one per entry of the last axis) -> int8 on `out_shift`.

    n = acc_shift - out_shift. n > 0 divides by 2^n, half to even, and saturates. n <= 0 saturates, shifts left and
    saturates again, for an int32 shifted first would overflow. n > 30 raises QuantError.
    """
    n = np.asarray(acc_shift, np.int64) - out_shift
    quotient = saturate(divide_half_even(acc, np.maximum(n, 0)))
    return saturate(quotient << np.maximum(-n, 0)).astype(np.int8)


def align(x: ArrayLike, shift_from: ArrayLike, shift_to: ArrayLike) -> Int64:
    """x · 2^(shift_to - shift_from): the same real values on a finer grid. QuantError if `shift_to` is coarser."""
    left = np.asarray(shift_to, np.int64) - np.asarray(shift_from, np.int64)
    if (left < 0).any():
        raise QuantError("align goes to a finer grid only; requantize goes to a coarser one")
    return np.asarray(x, np.int64) << left


def convolve(x: Int8, weight: Int8, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Int64:
    """Cross-correlation of x (N,H,W,C) with weight (O,kh,kw,C/groups), zero padding -> int64 (N,OH,OW,O).

    It runs as a matrix product in floating point, which is exact: every partial sum is an integer of magnitude at most
    128 · Σ|w|, so with that under 2^24 (float32) or under 2^53 (float64: always) no sum is ever rounded.
    """
    _check_convolution(x, weight, groups)
    out_channels, kernel_h, kernel_w, group_in = weight.shape
    largest_sum = -INT8_MIN * int(np.abs(weight.astype(np.int64)).reshape(out_channels, -1).sum(axis=1).max())
    dtype = np.float32 if largest_sum < ACCUMULATOR_LIMIT else np.float64
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel_h, kernel_w), axis=(1, 2))[:, ::stride, ::stride]
    batch, out_h, out_w = windows.shape[:3]
    grouped = windows.reshape(batch, out_h, out_w, groups, group_in, kernel_h, kernel_w)
    columns = grouped.transpose(3, 0, 1, 2, 5, 6, 4).reshape(groups, batch * out_h * out_w, -1).astype(dtype)
    matrix = weight.reshape(groups, out_channels // groups, -1).transpose(0, 2, 1).astype(dtype)
    products = np.matmul(columns, matrix)  # (groups, positions, O/groups)
    return products.transpose(1, 0, 2).reshape(batch, out_h, out_w, out_channels).astype(np.int64)


def _check_convolution(x: Int8, weight: Int8, groups: int) -> None:
    if x.dtype != np.int8 or weight.dtype != np.int8:
        raise QuantError(f"a convolution takes int8, not {x.dtype} and {weight.dtype}; quantize first")
    if x.ndim != 4 or weight.ndim != 4:
        raise QuantError(f"a convolution takes NHWC and OHWI, not shapes {x.shape} and {weight.shape}")
    if x.shape[3] != weight.shape[3] * groups or weight.shape[0] % groups:
        raise QuantError(
            f"weight {weight.shape} does not fit {x.shape[3]} channels in {groups} groups (OHWI, I = C / groups)"
        )


def conv_layer(
    x: Int8,
    x_shift: int,
    weight: Int8,
    weight_shift: Int64,
    bias: Int32,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    relu: bool = False,
    out_shift: int,
    residual: Int8 | None = None,
    residual_shift: int | None = None,
) -> Int8:
    """Convolution + bias [+ int8 residual] [ReLU], requantized once at the end -> int8 (N,OH,OW,O) on `out_shift`.

    weight_shift (O,); bias (O,) on shift x_shift + weight_shift. The residual (N,OH,OW,O) is added before
    requantization: per channel both sides go left to the finer of their two grids.
    """
    grid = np.asarray(weight_shift, np.int64) + x_shift
    acc = convolve(x, weight, stride=stride, padding=padding, groups=groups) + bias.astype(np.int64)
    if residual is not None:
        if residual_shift is None:
            raise QuantError("a residual needs its residual_shift")
        conv_grid, grid = grid, np.maximum(grid, residual_shift)
        acc = align(acc, conv_grid, grid) + align(residual, residual_shift, grid)
    if relu:
        acc = np.maximum(acc, 0)
    return requantize(acc, grid, out_shift)


def add_layer(a: Int8, a_shift: int, b: Int8, b_shift: int, *, relu: bool = False, out_shift: int) -> Int8:
    """a + b [ReLU] -> int8 on `out_shift`; both go left to the finer of their grids first. Shapes are equal."""
    if a.shape != b.shape:
        raise QuantError(f"an add takes equal shapes, not {a.shape} and {b.shape}")
    grid = max(a_shift, b_shift)
    total = align(a, a_shift, grid) + align(b, b_shift, grid)
    return requantize(np.maximum(total, 0) if relu else total, grid, out_shift)


def upsample2x(x: Int8, out_hw: tuple[int, int]) -> Int8:
    """Nearest neighbour, every pixel to 2x2, then cropped at the bottom and the right to `out_hw`. The shift stays."""
    height, width = x.shape[1] * 2, x.shape[2] * 2
    if out_hw[0] not in (height - 1, height) or out_hw[1] not in (width - 1, width):
        raise QuantError(f"upsampling {x.shape[1:3]} gives {(height, width)} or one less, not {tuple(out_hw)}")
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : out_hw[0], : out_hw[1]]


def concat(tensors: Sequence[tuple[Int8, int]], out_shift: int) -> Int8:
    """Joins (x, shift) pairs along the channels, each requantized to `out_shift`."""
    return np.concatenate([requantize(x, shift, out_shift) for x, shift in tensors], axis=-1)


def average_pool(x: Int8, kernel: int, stride: int, x_shift: int, out_shift: int) -> Int8:
    """Mean over kernel x kernel windows without padding: the exact rational, rounded once, half to even.

    Equal to what ONNX Runtime's float division gives only where kernel² is a power of two.
    """
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    total = windows.sum(axis=(-2, -1), dtype=np.int64)
    numerator = total << max(out_shift - x_shift, 0)
    return saturate(divide_rational(numerator, kernel * kernel << max(x_shift - out_shift, 0))).astype(np.int8)


def channel_argmax(x: Int8) -> NDArray[np.uint8]:
    """Index of the largest channel, the lowest on a tie: int8 (N,H,W,C) on one shift -> uint8 (N,H,W). C <= 256."""
    if x.shape[-1] > 256:
        raise QuantError(f"a class map is uint8: at most 256 classes, not {x.shape[-1]}")
    return np.argmax(x, axis=-1).astype(np.uint8)
