"""The end of every layer, requantization, on all ties and limits; and mutants that the comparison must notice.

A 1x1 convolution of weights 0 hands its bias through as the accumulator, and every channel has its own shift: one call
runs thousands of requantizations.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.epilogue import Register, WideEpilogue
from compile.kernels.requantize import Requantize, all_lanes
from compile.layers import ConvLayer, Shape
from quant import arith
from quant.arith import ACCUMULATOR_LIMIT
from tests.compile.engines import Run, kernel_layers, plain_layers

Array = np.ndarray
SHIFTS = [(12, -4), (5, 5), (-4, 12)]  # input and output: distances 8..30, -8..14 and -24..-2


def accumulators(distance: int) -> Array:
    """Around powers of two, around ties and limits of a division by 2^distance, and the largest that are allowed."""
    near_powers = [sign * (1 << i) + k for i in range(24) for sign in (-1, 1) for k in (-2, -1, 0, 1, 2)]
    half = 1 << max(distance - 1, 0)
    near_ties = [odd * half + k for odd in range(-7, 8) for k in (-1, 0, 1)]
    near_limits = [sign * (limit * 2 * half + half) + k for limit in (127, 128) for sign in (-1, 1) for k in (-1, 0, 1)]
    limits = [ACCUMULATOR_LIMIT - 1, 1 - ACCUMULATOR_LIMIT]
    values = np.unique([*near_powers, *near_ties, *near_limits, *limits])
    return values[np.abs(values) < ACCUMULATOR_LIMIT]


def case(in_shift: int, out_shift: int) -> tuple[ConvLayer, list[Shape], list[Array]]:
    """The layer, and arguments that put every accumulator on every legal distance."""
    values = {shift: accumulators(in_shift + shift - out_shift) for shift in range(-8, 15)}
    bias = np.concatenate(list(values.values())).astype(np.int32)
    weight_shift = np.concatenate([np.full(len(v), shift, np.int32) for shift, v in values.items()])
    layer = ConvLayer(in_shift, out_shift, stride=1, padding=0, groups=1, relu=False)
    x, weight = np.ones((1, 1, 1, 1), np.int8), np.zeros((len(bias), 1, 1, 1), np.int8)
    arguments = [x, weight, bias, weight_shift]
    return layer, [argument.shape for argument in arguments], arguments


def check(form: Callable[[list[Any]], list[Run]], in_shift: int, out_shift: int) -> None:
    layer, shapes, arguments = case(in_shift, out_shift)
    (run,) = form([(layer, shapes)])
    _, _, bias, weight_shift = arguments
    expected = arith.requantize(bias, weight_shift.astype(np.int64) + in_shift, out_shift)
    assert np.array_equal(run(*arguments).ravel(), expected)


@pytest.mark.parametrize("form", [plain_layers, kernel_layers], ids=["relax", "kernel"])
@pytest.mark.parametrize(("in_shift", "out_shift"), SHIFTS)
def test_every_distance(form: Callable[[list[Any]], list[Run]], in_shift: int, out_shift: int) -> None:
    check(form, in_shift, out_shift)


Rounding = Callable[[Any, int], tirx.Expr]


def half_up(value: tirx.Expr, lanes: int) -> tirx.Expr:
    return T.floor(value + all_lanes(0.5, lanes))


def truncating(value: tirx.Expr, lanes: int) -> tirx.Expr:
    return T.floor(value)


@pytest.mark.parametrize("rounding", [half_up, truncating])
def test_another_rounding_is_noticed(rounding: Rounding, monkeypatch: pytest.MonkeyPatch) -> None:
    def mutant(self: WideEpilogue, register: Register, lanes: int) -> tirx.Expr:
        value = T.Cast(f"float32x{lanes}", register.sums) * register.constants[0]
        return rounding(value, lanes) + self.requantize.rounder(lanes)

    monkeypatch.setattr(WideEpilogue, "rounded", mutant)
    with pytest.raises(AssertionError):
        check(kernel_layers, *SHIFTS[1])


def test_missing_saturation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutant(self: Requantize, value: tirx.Expr, lanes: int) -> tirx.Expr:
        return T.Cast(f"{self.target.dtype}x{lanes}", value)

    monkeypatch.setattr(Requantize, "limited", mutant)
    with pytest.raises(AssertionError):
        check(kernel_layers, *SHIFTS[0])
