"""The certificate: bounds that are reached, layers over them refused by name."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant import arith, certificate
from quant.arith import ACCUMULATOR_LIMIT
from quant.certificate import (
    CertificateError,
    LayerBound,
    add_bound,
    check,
    concat_bound,
    conv_bound,
    pool_bound,
)

ONE = np.ones((1, 1, 1, 1), np.int8)


def bound_with_bias(bias: int, **settings: Any) -> LayerBound:
    return conv_bound(ONE, [0], np.array([bias], np.int32), input_shift=0, input_max=127, **settings)


def test_a_layer_over_the_bound_is_refused_by_name() -> None:
    last_good = bound_with_bias(ACCUMULATOR_LIMIT - 128, name="stem")
    assert last_good.float_bound == ACCUMULATOR_LIMIT - 1
    check([last_good])
    bad = bound_with_bias(ACCUMULATOR_LIMIT - 127, name="backbone.stage2.0.conv")
    with pytest.raises(CertificateError, match=r"backbone\.stage2\.0\.conv .*channel 0.*2\^24.*Lower that layer"):
        check([last_good, bad])


def test_a_wide_residual_is_refused() -> None:
    good = bound_with_bias(0, residual_shift=0)
    assert good.float_bound == 127 + 128
    bad = bound_with_bias(0, residual_shift=18, name="block.3")
    assert bad.float_bound == (127 << 18) + 128
    with pytest.raises(CertificateError, match=r"block\.3"):
        check([bad])


def test_the_negative_bias_counts_too() -> None:
    with pytest.raises(CertificateError):
        check([bound_with_bias(-ACCUMULATOR_LIMIT)])


def test_int32_of_step_three_is_checked_on_its_own() -> None:
    """The bound of floats does not see the rounding addend; the aligned one does."""
    bound = LayerBound("odd", "conv", float_bound=5, aligned_bound=1 << 31, worst_channel=0)
    with pytest.raises(CertificateError, match=r"odd.*int32"):
        check([bound])
    assert bound_with_bias(0, out_shift=-3).aligned_bound == 127 + (1 << 2)
    assert bound_with_bias(0, out_shift=0).aligned_bound == 127
    assert bound_with_bias(0).aligned_bound == 127 + (1 << 29), "unknown: the largest that is legal"


def test_the_worst_channel_is_named() -> None:
    weight = np.array([[1], [-9], [5]], np.int8)
    bound = conv_bound(weight, [0, 0, 0], np.array([0, -7, 4], np.int32), input_shift=0, input_max=128)
    assert (bound.float_bound, bound.worst_channel) == (9 * 128 + 7, 1)


def test_bounds_are_json() -> None:
    bound = bound_with_bias(3, name="stem")
    assert LayerBound(**json.loads(json.dumps(bound.to_json()))) == bound


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.none() | st.integers(-4, 12), st.booleans())
def test_the_bound_holds_and_is_reached(
    seed: int, input_shift: int, residual_shift: int | None, behind_relu: bool
) -> None:
    """One input per channel pushes every term the same way: its sum of magnitudes is the bound, not a bit less.

    With weights of one sign the accumulator itself gets there; no random input gets beyond.
    """
    rng = np.random.default_rng(seed)
    input_max = 127 if behind_relu else 128
    extreme = 127 if behind_relu else -128
    sign = rng.choice([-1, 1], 4)
    weight = (rng.integers(0, 128, (4, 3, 3, 2)) * sign[:, None, None, None]).astype(np.int8)
    weight_shift = rng.integers(0, 8, 4)
    bias = (rng.integers(0, 100000, 4) * sign * np.sign(extreme)).astype(np.int32)
    known: dict[str, Any] = {"input_shift": input_shift, "residual_shift": residual_shift}
    bounds = certificate.channel_bounds(weight, weight_shift, bias, input_max=input_max, **known)
    grid = weight_shift + input_shift
    finest = grid if residual_shift is None else np.maximum(grid, residual_shift)

    def accumulator(x: np.ndarray, residual: np.ndarray) -> np.ndarray:
        total = arith.align(arith.convolve(x, weight) + bias, grid, finest)
        return total if residual_shift is None else total + arith.align(residual, residual_shift, finest)

    worst = np.full((1, 3, 3, 2), extreme, np.int8)
    aligned_residual = 0 if residual_shift is None else 128 << (finest - residual_shift)
    without_residual = accumulator(worst, np.zeros((1, 1, 1, 4), np.int8))
    assert np.array_equal(np.abs(without_residual).ravel(), bounds - aligned_residual)
    reached = accumulator(worst, np.full((1, 1, 1, 4), -128, np.int8))
    downwards = sign * extreme < 0  # those that a residual of -128 pushes further
    assert np.array_equal(np.abs(reached).ravel()[downwards], bounds[downwards])
    for _ in range(5):
        x = rng.integers(0 if behind_relu else -128, 128, (1, 3, 3, 2)).astype(np.int8)
        residual = rng.integers(-128, 128, (1, 1, 1, 4)).astype(np.int8)
        assert (np.abs(accumulator(x, residual)).ravel() <= bounds).all()


def test_under_the_bound_float32_is_exact_in_any_order() -> None:
    rng = np.random.default_rng(2)
    weight = rng.integers(-127, 128, (1, 1040)).astype(np.int8)
    bound = conv_bound(weight, [0], np.zeros(1, np.int32), input_shift=0, input_max=128)
    assert ACCUMULATOR_LIMIT // 3 < bound.float_bound < ACCUMULATOR_LIMIT
    products = weight[0].astype(np.float32) * rng.choice([-128, 127], 1040).astype(np.float32)
    for _ in range(20):
        order = rng.permutation(1040)
        running = np.cumsum(products[order], dtype=np.float32)[-1]
        assert running == products.astype(np.float64).sum()


def test_over_the_bound_the_order_matters() -> None:
    """Why there is a bound: 2^24 + 1 + 1 is another float32 than 1 + 1 + 2^24."""
    big, one = np.float32(ACCUMULATOR_LIMIT), np.float32(1)
    assert (big + one) + one != big + (one + one)


@pytest.mark.parametrize(("a_shift", "b_shift"), [(4, 4), (0, 9), (12, -4)])
def test_add_bound_is_reached(a_shift: int, b_shift: int) -> None:
    grid = max(a_shift, b_shift)
    worst = arith.align(-128, a_shift, grid) + arith.align(-128, b_shift, grid)
    assert add_bound(a_shift, b_shift).float_bound == -worst
    assert add_bound(a_shift, b_shift, a_max=127, b_max=127).float_bound == -worst * 127 // 128
    check([add_bound(a_shift, b_shift)])


def test_pool_and_concat_bounds() -> None:
    assert pool_bound(3, 4, 4) == LayerBound("", "pool", 9 * 128, 9 * 128 + 4, 0)
    assert pool_bound(2, 4, 6).aligned_bound == (4 * 128 << 2) + 2
    assert concat_bound([4, 7, 5], out_shift=4) == LayerBound("", "concat", 128, 128 + 4, 0)
    with pytest.raises(CertificateError, match=r"pool.*2\^24"):
        check([pool_bound(363, 0, 0, name="huge")])
