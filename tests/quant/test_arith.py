"""Rounding, saturation and alignment of quant.arith against rational numbers, and mutants the checks must notice."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant import arith
from quant.errors import QuantError

LIMIT = arith.ACCUMULATOR_LIMIT


def powers_and_neighbours() -> list[int]:
    values = {sign * (1 << i) + offset for sign in (-1, 1) for i in range(25) for offset in (-2, -1, 0, 1, 2)}
    return sorted(values | {0, 1, -1, LIMIT - 1, 1 - LIMIT, LIMIT, -LIMIT})


def ties(n: int) -> list[int]:
    """Accumulators exactly between two multiples of 2^n, from deep in saturation on one side to the other."""
    return [(2 * k + 1) << (n - 1) for k in range(-140, 140)]


def exact(acc: int, acc_shift: int, out_shift: int) -> int:
    """The rule over the rationals: Python rounds a Fraction half to even."""
    return max(-128, min(127, round(Fraction(acc) * Fraction(2) ** (out_shift - acc_shift))))


def check_pixels() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    q = arith.quantize_pixels(pixels)
    assert q.dtype == np.int8
    assert [Fraction(int(v), 1 << arith.INPUT_SHIFT) for v in q] == [Fraction(p - 128, 128) for p in range(256)]
    assert arith.quantize_pixels(np.uint8([arith.PAD_PIXEL])) == 0


def check_divide() -> None:
    for n in range(31):
        values = powers_and_neighbours() + (ties(n) if n else [])
        got = arith.divide_half_even(values, n)
        assert got.tolist() == [round(Fraction(value, 1 << n)) for value in values], f"n = {n}"
        assert np.array_equal(got, np.rint(np.array(values) / 2.0**n))


def check_requantize_pointwise() -> None:
    """Every int8 from every activation shift to every other."""
    q = np.arange(-128, 128)
    for shift in range(-4, 13):
        for out_shift in range(-4, 13):
            got = arith.requantize(q, shift, out_shift)
            assert got.dtype == np.int8
            assert got.tolist() == [exact(int(v), shift, out_shift) for v in q]


def check_requantize_accumulators() -> None:
    for n in range(-24, 31):
        values = powers_and_neighbours() + (ties(n) if n > 0 else [])
        assert arith.requantize(values, n + 3, 3).tolist() == [exact(value, n, 0) for value in values], f"n = {n}"


def check_requantize_per_channel() -> None:
    shifts = np.arange(-12, 27)
    values = np.array(powers_and_neighbours())[:, None].repeat(len(shifts), axis=1)
    got = arith.requantize(values, shifts, -4)
    for index, shift in enumerate(shifts):
        assert got[:, index].tolist() == [exact(int(v), int(shift), -4) for v in values[:, index]]


def check_align() -> None:
    q = np.arange(-128, 128)
    for left in range(25):
        assert arith.align(q, -4, left - 4).tolist() == [int(v) * 2**left for v in q]
    with pytest.raises(QuantError, match="finer"):
        arith.align(q, 3, 2)


CHECKS = [
    check_pixels,
    check_divide,
    check_requantize_pointwise,
    check_requantize_accumulators,
    check_requantize_per_channel,
    check_align,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_exact(check: Callable[[], None]) -> None:
    check()


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-12, 26), st.integers(-4, 12))
def test_requantize_any_int32(acc: int, acc_shift: int, out_shift: int) -> None:
    assert int(arith.requantize(acc, acc_shift, out_shift)) == exact(acc, acc_shift, out_shift)


@given(st.lists(st.integers(-(LIMIT - 1), LIMIT - 1), min_size=1), st.integers(0, 30))
def test_rounding_is_odd_and_monotone(values: list[int], n: int) -> None:
    rounded = arith.divide_half_even(np.sort(values), n)
    assert (np.diff(rounded) >= 0).all()
    assert np.array_equal(arith.divide_half_even(-np.sort(values), n), -rounded)


@given(st.integers(-(LIMIT - 1), LIMIT - 1), st.integers(1, 30))
def test_the_float32_form_is_the_same_rule(acc: int, n: int) -> None:
    """What a kernel, torch and ONNX Runtime do: convert, multiply by 2^-n, round to nearest even. Exact below 2^24."""
    in_float = np.rint(np.float32(acc) * np.float32(2.0**-n))
    assert int(in_float) == int(arith.divide_half_even(acc, n))


def test_every_constant_of_the_rules() -> None:
    assert (arith.INT8_MIN, arith.INT8_MAX, arith.WEIGHT_MAX) == (-128, 127, 127)
    assert np.float32(LIMIT - 1) + np.float32(1) == LIMIT
    assert np.float32(LIMIT) + np.float32(1) == LIMIT, "2^24 is the first place where a float32 sum rounds"


@pytest.mark.parametrize("n", [31, 40])
def test_too_far_a_shift_is_refused(n: int) -> None:
    with pytest.raises(QuantError, match=r"0\.\.30"):
        arith.requantize([1], n, 0)
    with pytest.raises(QuantError, match=r"0\.\.30"):
        arith.divide_half_even([1], -1)


def test_pixels_must_be_bytes() -> None:
    with pytest.raises(QuantError, match="uint8"):
        arith.quantize_pixels(np.zeros(3, np.float32))  # type: ignore[arg-type]


def half_up(a: Any, n: Any) -> Any:
    return (np.asarray(a, np.int64) + ((np.int64(1) << np.asarray(n)) >> 1)) >> n


def half_away(a: Any, n: Any) -> Any:
    a = np.asarray(a, np.int64)
    return np.sign(a) * half_up(np.abs(a), n)


def floor(a: Any, n: Any) -> Any:
    return np.asarray(a, np.int64) >> n


def truncate(a: Any, n: Any) -> Any:
    a = np.asarray(a, np.int64)
    return np.sign(a) * (np.abs(a) >> n)


def half_odd(a: Any, n: Any) -> Any:
    a, n = np.asarray(a, np.int64), np.asarray(n)
    return (a + ((np.int64(1) << n) >> 1) - ((a >> n) & 1) * (n > 0)) >> n


def left_shift_first(acc: Any, acc_shift: Any, out_shift: int) -> Any:
    """Forgets that an int32 shifted left before the first clip overflows."""
    n = np.asarray(acc_shift, np.int64) - out_shift
    shifted = (np.asarray(acc, np.int64) << np.maximum(-n, 0)).astype(np.int32)
    return np.clip(arith.divide_half_even(shifted, np.maximum(n, 0)), -128, 127).astype(np.int8)


def one_shift_for_all(acc: Any, acc_shift: Any, out_shift: int) -> Any:
    n = int(np.max(acc_shift)) - out_shift
    return np.clip(np.rint(np.asarray(acc) / 2.0**n), -128, 127).astype(np.int8)


MUTANTS: list[tuple[str, Any, Callable[[], None]]] = [
    ("divide_half_even", half_up, check_divide),
    ("divide_half_even", half_away, check_divide),
    ("divide_half_even", half_odd, check_divide),
    ("divide_half_even", floor, check_divide),
    ("divide_half_even", truncate, check_divide),
    ("divide_half_even", half_up, check_requantize_pointwise),
    ("divide_half_even", half_away, check_requantize_accumulators),
    ("divide_half_even", half_up, check_requantize_per_channel),
    ("saturate", lambda value: value, check_requantize_pointwise),
    ("saturate", lambda value: value, check_requantize_accumulators),
    ("saturate", lambda value: np.clip(value, -127, 127), check_requantize_pointwise),
    ("saturate", lambda value: np.clip(value, -128, 128), check_requantize_accumulators),
    ("requantize", left_shift_first, check_requantize_accumulators),
    ("requantize", one_shift_for_all, check_requantize_per_channel),
    ("align", lambda x, shift_from, shift_to: np.asarray(x), check_align),
    ("quantize_pixels", lambda p: (p.astype(np.int16) - 127).clip(-128, 127).astype(np.int8), check_pixels),
    ("quantize_pixels", lambda p: p.view(np.int8), check_pixels),
]


@pytest.mark.parametrize(("name", "mutant", "check"), MUTANTS)
def test_mutants_are_noticed(
    name: str, mutant: Any, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    monkeypatch.setattr(arith, name, mutant)
    with pytest.raises(AssertionError):
        check()
