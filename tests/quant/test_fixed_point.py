"""Multipliers: the nearest of 31 bits, exact for powers of two, and rounded as an exact rational would be."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quant.arith import add_layer, requantize
from quant.errors import QuantError
from quant.fixed_point import LEAST, common_multipliers, multiplier, ratio, reals, scale, scale_sum, table

scales = st.floats(2.0**-20, 2.0**4, width=32)
accumulators = st.integers(-(2**31) + 1, 2**31 - 1)


@settings(deadline=None)
@given(accumulators, scales, scales, scales)
def test_one_rounding_of_the_exact_product(acc: int, x: float, w: float, y: float) -> None:
    exact = ratio(x, w, over=y)
    assume(exact >= Fraction(1, 1 << 32))  # smaller ones are 0, see below
    found = multiplier(exact)
    assert LEAST <= found.m < 2 * LEAST
    assert abs(Fraction(found.m, 1 << found.n) - exact) <= Fraction(1, 1 << (found.n + 1))
    expected = round(Fraction(acc * found.m, 1 << found.n))  # half to even
    assert scale([acc], found.m, found.n)[0] == min(max(expected, -128), 127)


@settings(deadline=None)
@given(accumulators, st.integers(-12, 30))
def test_powers_of_two_are_the_shift_rule(acc: int, n: int) -> None:
    found = multiplier(Fraction(1, 1 << n) if n >= 0 else Fraction(1 << -n))
    assert (found.m, found.n) == (LEAST, 30 + n)
    assert scale([acc], found.m, found.n)[0] == requantize(acc, n, 0)


@settings(deadline=None)
@given(st.integers(-128, 127), st.integers(-128, 127), st.integers(-4, 12), st.integers(-4, 12), st.integers(-4, 12))
def test_a_sum_of_powers_of_two_is_the_add_layer(a: int, b: int, a_shift: int, b_shift: int, out_shift: int) -> None:
    ratios = [Fraction(2) ** (out_shift - shift) for shift in (a_shift, b_shift)]
    left, right = (np.array([value], np.int8) for value in (a, b))
    assert scale_sum([left, right], *common_multipliers(ratios)) == add_layer(
        left, a_shift, right, b_shift, out_shift=out_shift
    )


def test_summands_are_rounded_together() -> None:
    """1/3 + 1/6 is a half, a tie; each alone would be 0 or 1."""
    one = np.array([1], np.int8)
    factors, n = common_multipliers([Fraction(1, 3), Fraction(1, 6)])
    assert n == 32
    assert abs(Fraction(sum(factors), 1 << n) - Fraction(1, 2)) < Fraction(1, 1 << 31)
    assert scale_sum([3 * one, 3 * one], *common_multipliers([Fraction(1, 2), Fraction(1, 2)])) == 3
    assert scale_sum([one, one], *common_multipliers([Fraction(1, 2), Fraction(1, 4)])) == 1


def test_a_mantissa_that_rounds_up_to_the_next_power() -> None:
    almost = Fraction(2) - Fraction(1, 1 << 40)
    assert multiplier(almost) == multiplier(Fraction(2))


def test_ratios_out_of_range() -> None:
    assert multiplier(Fraction(1, 1 << 40)).m == 0
    assert scale([2**31 - 1], 0, 1)[0] == 0
    with pytest.raises(QuantError, match="would saturate; quantize anew"):
        multiplier(Fraction(1 << 31))
    with pytest.raises(QuantError, match="must be positive"):
        multiplier(Fraction(0))
    with pytest.raises(QuantError, match="leaves int32"):
        scale([2**31], LEAST, 31)


def test_tables_are_those_of_onnx() -> None:
    x = reals(0.05)
    found = table(np.maximum(x, np.float32(0.1) * x), 0.04)
    assert (found[128], found[255], found[0]) == (0, 127, -16)
    assert found[128 + 10] == 12  # 12.5, tie to even
