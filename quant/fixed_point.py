"""Scales that are no powers of two: a ratio of scales as an integer multiplier, and what follows from it.

For models that others have quantized; Bitroad's own need shifts only. docs/integer.md, section 10. A tensor has the
scale S, a positive float32: real = q · S. Where a rule of `quant.arith` divides by 2^n, here it multiplies by m · 2^-n.
Where all scales are powers of two, every result is that of `quant.arith`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quant.arith import INT8_MAX, INT8_MIN, Int8, Int64, saturate
from quant.errors import QuantError

MULTIPLIER_BITS = 31  # m < 2^31: with |acc| < 2^31 every product is under 2^62
LEAST = 1 << (MULTIPLIER_BITS - 1)
LONGEST_SHIFT = 62


@dataclass(frozen=True)
class Multiplier:
    """m · 2^-n, 0 <= m < 2^31, 1 <= n <= 62."""

    m: int
    n: int


def multiplier(ratio: Fraction) -> Multiplier:
    """The multiplier nearest to a positive ratio: 31 significant bits, a tie to the even one; a power of two is exact.

    Below 2^-32 it is 0: no accumulator reaches 1/2 then. QuantError from 2^30 on: every value but 0 would saturate.
    """
    if ratio <= 0:
        raise QuantError(f"a ratio of scales must be positive, is {float(ratio):g}; scales are positive")
    n = MULTIPLIER_BITS - 1 - _floor_log2(ratio)
    if n < 1:
        raise QuantError(f"a ratio of scales is {float(ratio):g}: every value but 0 would saturate; quantize anew")
    if n > LONGEST_SHIFT:
        return Multiplier(0, 1)
    m = round(ratio * (1 << n))  # Python rounds a fraction half to even
    return Multiplier(m, n) if m < 2 * LEAST else multiplier(Fraction(m, 1 << n))


def ratio(*factors: float, over: float) -> Fraction:
    """The exact product of float32 scales over another one."""
    result = Fraction(1)
    for factor in factors:
        result *= Fraction(float(factor))
    return result / Fraction(float(over))


def scale(acc: ArrayLike, m: ArrayLike, n: ArrayLike) -> Int8:
    """clip(acc · m / 2^n), rounded once, half to even, int64 inside. m and n: one, or one per entry of the last axis.

    |acc| < 2^31, else QuantError.
    """
    value = np.asarray(acc, np.int64)
    if value.size and np.abs(value).max() >= 1 << 31:
        raise QuantError("an accumulator leaves int32; use smaller weights or fewer channels")
    return saturate(_divide(value * np.asarray(m, np.int64), n)).astype(np.int8)


def common_multipliers(ratios: Sequence[Fraction]) -> tuple[tuple[int, ...], int]:
    """Multipliers of summands that are rounded together: m of each, on the one n that suits the largest."""
    n = multiplier(max(ratios)).n
    return tuple(round(entry * (1 << n)) for entry in ratios), n


def scale_sum(tensors: Sequence[Int8], m: Sequence[int], n: int) -> Int8:
    """Σ q_i · m_i / 2^n -> int8, rounded once. Shapes are equal; m and n are those of `common_multipliers`."""
    total = np.sum([x.astype(np.int64) * factor for x, factor in zip(tensors, m, strict=True)], axis=0)
    return saturate(_divide(total, n)).astype(np.int8)


def table(values: NDArray[np.float32], out_scale: float) -> Int8:
    """int8[256] from the real value at every q: entry q + 128 is clip(round(value / S)), in float32 as ONNX defines."""
    return np.clip(np.rint(values / np.float32(out_scale)), INT8_MIN, INT8_MAX).astype(np.int8)


def reals(in_scale: float) -> NDArray[np.float32]:
    """float32[256]: entry q + 128 is q · S."""
    return np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.float32) * np.float32(in_scale)


def _divide(value: Int64, shift: ArrayLike) -> Int64:
    """value / 2^shift, half to even, 1 <= shift <= 62."""
    n = np.asarray(shift, np.int64)
    return (value + ((np.int64(1) << (n - 1)) - 1) + ((value >> n) & 1)) >> n


def _floor_log2(value: Fraction) -> int:
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1
