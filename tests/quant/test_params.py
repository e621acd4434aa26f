"""The choice of shifts: the largest that fits the range and the certificate."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant import params
from quant.arith import ACCUMULATOR_LIMIT
from quant.certificate import channel_bounds, check, conv_bound
from quant.errors import QuantError
from quant.params import (
    ACTIVATION_SHIFT_MAX,
    ACTIVATION_SHIFT_MIN,
    WEIGHT_SHIFT_MAX,
    WEIGHT_SHIFT_MIN,
    choose_activation_shift,
    choose_weight_shift,
    quantize_bias,
    quantize_weight,
    scale_of,
    shift_of,
)

original_fitting = params._largest_fitting_shift


def bounds_of(weight: np.ndarray, bias: np.ndarray, shift: np.ndarray, **settings: Any) -> np.ndarray:
    return channel_bounds(
        quantize_weight(weight, shift), shift, quantize_bias(bias, shift + settings["input_shift"]), **settings
    )


def check_choice(weight: np.ndarray, bias: np.ndarray, known: dict[str, Any]) -> None:
    """The shift fits both limits, and one more fits one of them no longer."""
    shift = choose_weight_shift(weight, bias, **known)
    largest = np.abs(weight).max(axis=(1, 2, 3)).astype(np.float64)
    assert ((shift >= WEIGHT_SHIFT_MIN) & (shift <= WEIGHT_SHIFT_MAX)).all()
    assert (largest * 2.0**shift <= 127).all()
    bounds = bounds_of(weight, bias, shift, **known)
    assert ((bounds < ACCUMULATOR_LIMIT) | (shift == WEIGHT_SHIFT_MIN)).all()
    one_more = shift + 1
    too_fine = (one_more > WEIGHT_SHIFT_MAX) | (largest * 2.0**one_more > 127)
    assert (too_fine | (bounds_of(weight, bias, one_more, **known) >= ACCUMULATOR_LIMIT)).all()


def test_no_legal_shifts_need_more_than_thirty_bits() -> None:
    assert ACTIVATION_SHIFT_MAX + WEIGHT_SHIFT_MAX - ACTIVATION_SHIFT_MIN == 30


def test_scale_and_shift_are_inverse() -> None:
    for shift in range(-30, 31):
        assert shift_of(scale_of(shift)) == shift
    for scale in (0.0, -0.5, 0.3, 0.50000006, float("nan"), float("inf")):
        with pytest.raises(QuantError):
            shift_of(scale)


@given(st.floats(0, 1e6))
def test_activation_shift_is_the_largest_that_fits(max_abs: float) -> None:
    shift = choose_activation_shift(max_abs)
    assert ACTIVATION_SHIFT_MIN <= shift <= ACTIVATION_SHIFT_MAX
    assert max_abs * 2.0**shift <= 127 or shift == ACTIVATION_SHIFT_MIN
    assert max_abs * 2.0 ** (shift + 1) > 127 or shift == ACTIVATION_SHIFT_MAX


@pytest.mark.parametrize(
    ("max_abs", "shift"), [(127, 0), (127.00001, -1), (0.9921875, 7), (1.0, 6), (0, 12), (1e9, -4)]
)
def test_activation_shift_at_the_edges(max_abs: float, shift: int) -> None:
    assert choose_activation_shift(max_abs) == shift


@pytest.mark.parametrize("max_abs", [float("nan"), float("inf"), -1.0])
def test_a_range_that_is_none_is_refused(max_abs: float) -> None:
    with pytest.raises(QuantError, match="diverged"):
        choose_activation_shift(max_abs)


def test_a_nearly_dead_channel_keeps_the_bound() -> None:
    """Weights of 1e-4 alone would take shift 20; with the bias 1.0 that breaks 2^24 on a fine input."""
    weight, bias = np.full((1, 8, 3, 3), 1e-4, np.float32), np.ones(1, np.float32)
    for input_shift in range(ACTIVATION_SHIFT_MIN, ACTIVATION_SHIFT_MAX + 1):
        shift = choose_weight_shift(weight, bias, input_shift=input_shift, input_max=127)
        integers = quantize_weight(weight, shift), shift, quantize_bias(bias, shift + input_shift)
        check([conv_bound(*integers, input_shift=input_shift, input_max=127, name="dead")])
    assert shift == 11, "14 would fit the weights, 2^(12 + 12) the bias alone breaks"


def test_channels_of_zeros_get_the_fixed_shift() -> None:
    weight, bias = np.zeros((2, 4, 1, 1), np.float32), np.array([0.0, 3000.0], np.float32)
    assert choose_weight_shift(weight, bias, input_shift=4, input_max=127).tolist() == [8, 8]
    assert choose_weight_shift(weight, bias, input_shift=6, input_max=127).tolist() == [8, 6], "bias included"


def test_the_residual_counts() -> None:
    """On shift 14 + 8 the residual of shift 4 alone would reach 128 · 2^18."""
    weight, bias = np.full((1, 4, 1, 1), 0.001, np.float32), np.zeros(1, np.float32)
    free = choose_weight_shift(weight, bias, input_shift=8, input_max=127)
    bound = choose_weight_shift(weight, bias, input_shift=8, input_max=127, residual_shift=4)
    assert (free.item(), bound.item()) == (14, 12)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(-4, 12),
    st.sampled_from([127, 128]),
    st.none() | st.integers(-4, 9),
    st.floats(-14, 6),
    st.floats(-14, 6),
)
def test_weight_shift_is_the_largest_under_both_limits(
    seed: int, input_shift: int, input_max: int, residual_shift: int | None, log_weight: float, log_bias: float
) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(6, 4, 3, 3)) * np.exp2(log_weight + rng.uniform(-4, 4, (6, 1, 1, 1)))).astype(np.float32)
    bias = (rng.normal(size=6) * np.exp2(log_bias)).astype(np.float32)
    known: dict[str, Any] = {"input_shift": input_shift, "input_max": input_max, "residual_shift": residual_shift}
    check_choice(weight, bias, known)


def test_weights_out_of_every_range_are_refused() -> None:
    for weight, word in ((32513.0, r"127 · 2\^8"), (float("nan"), "not finite"), (float("inf"), "not finite")):
        with pytest.raises(QuantError, match=word):
            choose_weight_shift(np.full((1, 1), weight), np.zeros(1), input_shift=0, input_max=127)
    assert choose_weight_shift(np.full((1, 1), 32512.0), np.zeros(1), input_shift=0, input_max=127) == -8


def test_quantization_rounds_half_to_even_and_stops_at_127() -> None:
    weight = np.array([[0.5, 1.5, -2.5, 126.5], [300.0, -300.0, -127.6, 0.25]])
    assert quantize_weight(weight, [0, 0]).tolist() == [[0, 2, -2, 126], [127, -127, -127, 0]]
    assert quantize_weight(weight, [1, -2]).tolist() == [[1, 3, -5, 127], [75, -75, -32, 0]]
    assert quantize_bias(np.array([0.5, -1.5, 3.0]), [0, 0, 4]).tolist() == [0, -2, 48]
    with pytest.raises(QuantError, match="int32"):
        quantize_bias(np.array([1.0]), [31])
    with pytest.raises(QuantError, match="int32"):
        quantize_bias(np.array([np.nan]), [1])


def without_bias(weight: np.ndarray, shift: Any, bias: Any, **known: Any) -> np.ndarray:
    return channel_bounds(weight, shift, np.zeros(len(weight), np.int64), **known)


def without_residual(*integers: Any, **known: Any) -> np.ndarray:
    return channel_bounds(*integers, **(known | {"residual_shift": None}))


def unaligned_residual(*integers: Any, **known: Any) -> np.ndarray:
    return channel_bounds(*integers, **(known | {"residual_shift": None})) + 128


def too_careful(*integers: Any, **known: Any) -> np.ndarray:
    return 2 * channel_bounds(*integers, **known)


@pytest.mark.parametrize("mutant", [without_bias, without_residual, unaligned_residual, too_careful])
def test_a_wrong_bound_is_noticed(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = np.full((2, 4, 1, 1), [[[[0.001]]], [[[0.002]]]], np.float32), np.array([0.5, 40.0], np.float32)
    known = {"input_shift": 8, "input_max": 127, "residual_shift": 4}
    check_choice(weight, bias, known)
    monkeypatch.setattr(params, "channel_bounds", mutant)
    with pytest.raises(AssertionError):
        check_choice(weight, bias, known)


def low_limit(mantissa_limit: int) -> Any:
    return lambda max_abs, limit, highest: original_fitting(max_abs, mantissa_limit, highest)


@pytest.mark.parametrize("limit", [64, 128])
def test_a_wrong_range_is_noticed(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """128 would let the weight become -128 or saturate; 64 would waste a bit."""
    weight, bias = np.array([127.5, 126.0], np.float32).reshape(2, 1, 1, 1), np.zeros(2, np.float32)
    known = {"input_shift": 4, "input_max": 127, "residual_shift": None}
    check_choice(weight, bias, known)
    monkeypatch.setattr(params, "_largest_fitting_shift", low_limit(limit))
    with pytest.raises(AssertionError):
        check_choice(weight, bias, known)
