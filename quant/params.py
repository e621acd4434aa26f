"""Scales: which power of two a tensor gets, and the integers it becomes. Shifts are chosen under the certificate."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quant.arith import ACCUMULATOR_LIMIT, INT8_MAX, WEIGHT_MAX, Int8, Int32, Int64
from quant.certificate import channel_bounds
from quant.errors import QuantError

ACTIVATION_SHIFT_MIN, ACTIVATION_SHIFT_MAX = -4, 12
WEIGHT_SHIFT_MIN, WEIGHT_SHIFT_MAX = -8, 14  # with the activation shifts: n = sx + sw - sy <= 12 + 14 + 4 = 30
ZERO_WEIGHT_SHIFT = 8
INT32_MAX = (1 << 31) - 1

Floats = NDArray[np.floating[Any]]


def scale_of(shift: int) -> float:
    """The real value of one step: 2^-shift, exact in float."""
    return float(2.0**-shift)


def shift_of(scale: float) -> int:
    """The shift s with scale = 2^-s, the inverse of `scale_of`. QuantError where the scale is no power of two."""
    mantissa, exponent = np.frexp(np.float64(scale))
    if not (scale > 0 and mantissa == 0.5):
        raise QuantError(f"scale {scale!r} is no power of two; Bitroad quantizes by powers of two only")
    return 1 - int(exponent)


def choose_activation_shift(max_abs: float) -> int:
    """The largest shift in [-4, 12] with max_abs · 2^shift <= 127; -4 where even that one saturates."""
    if not np.isfinite(max_abs) or max_abs < 0:
        raise QuantError(
            f"the largest magnitude of an activation is {max_abs}; training diverged: lower the learning rate"
        )
    fitting = int(_largest_fitting_shift(np.float64(max_abs), INT8_MAX, ACTIVATION_SHIFT_MAX))
    return max(fitting, ACTIVATION_SHIFT_MIN)


def choose_weight_shift(
    weight: Floats,
    bias: Floats,
    *,
    input_shift: int,
    input_max: int,
    residual_shift: int | None = None,
) -> Int64:
    """Per output channel the largest shift in [-8, 14] with max|w| · 2^shift <= 127 and B < 2^24 -> int64 (O,).

    weight float (O, …), bias float (O,). A channel of zeros starts from the fixed shift 8. input_max: 127 behind a
    ReLU, else 128. Where not even shift -8 meets the bound (a residual on too fine a grid, a huge bias) the channel
    gets -8 and the certificate refuses the layer by name. QuantError on weights beyond 127 · 2^8 or not finite.
    """
    flat = np.asarray(weight, np.float64).reshape(len(weight), -1)
    bias64 = np.asarray(bias, np.float64)
    largest = np.abs(flat).max(axis=1)
    if not (np.isfinite(largest).all() and np.isfinite(bias64).all()):
        raise QuantError("a weight or bias is not finite; training diverged: lower the learning rate")
    if largest.max() > scale_of(WEIGHT_SHIFT_MIN) * WEIGHT_MAX:
        raise QuantError(
            f"weight {largest.max():g} in channel {largest.argmax()} is beyond 127 · 2^8; lower the learning rate"
        )
    shift = np.where(largest > 0, _largest_fitting_shift(largest, WEIGHT_MAX, WEIGHT_SHIFT_MAX), ZERO_WEIGHT_SHIFT)
    over = np.arange(len(flat))
    while over.size:
        bounds = channel_bounds(
            np.rint(np.ldexp(flat[over], shift[over, None])).astype(np.int64),
            shift[over],
            _on_grid(bias64[over], shift[over] + input_shift),
            input_shift=input_shift,
            input_max=input_max,
            residual_shift=residual_shift,
        )
        over = over[(bounds >= ACCUMULATOR_LIMIT) & (shift[over] > WEIGHT_SHIFT_MIN)]
        shift[over] -= 1
    return shift


def quantize_weight(weight: Floats, shift: ArrayLike) -> Int8:
    """float (O, …) -> int8 in [-127, 127] on `shift` (O,): rounded half to even, saturated."""
    per_channel = np.asarray(shift, np.int64).reshape(-1, *[1] * (weight.ndim - 1))
    scaled = np.rint(np.ldexp(np.asarray(weight, np.float64), per_channel))
    return np.clip(scaled, -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)


def quantize_bias(bias: Floats, shift: ArrayLike) -> Int32:
    """float (O,) -> int32 on `shift` (O,) = input shift + weight shift: half to even. QuantError beyond int32."""
    scaled = np.rint(np.ldexp(np.asarray(bias, np.float64), np.asarray(shift, np.int64)))
    if not (np.abs(scaled) <= INT32_MAX).all():
        raise QuantError(f"bias {np.abs(bias).max():g} does not fit int32 on its grid; choose the weight shifts anew")
    return scaled.astype(np.int32)


def _on_grid(bias: NDArray[np.float64], shift: Int64) -> Int64:
    # anything over the limit stays over it; the clip only keeps the conversion to int64 defined
    return np.rint(np.clip(np.ldexp(bias, shift), -(2.0**32), 2.0**32)).astype(np.int64)


def _largest_fitting_shift(max_abs: NDArray[np.float64] | np.float64, limit: int, highest: int) -> Int64:
    """Largest s <= highest with max_abs · 2^s <= limit (127), from the float's own exponent: no logarithm to round."""
    mantissa, exponent = np.frexp(max_abs)  # max_abs = mantissa · 2^exponent, mantissa in [0.5, 1)
    shift = np.where(np.ldexp(mantissa, 7) <= limit, 7 - exponent, 6 - exponent)
    return np.where(np.asarray(max_abs) > 0, np.minimum(shift, highest), highest).astype(np.int64)
