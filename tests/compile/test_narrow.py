"""The convolutions whose sums are small enough for NarrowEpilogue, up to the very limits of what it may be given."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from compile.kernel_plan import distances_of, has_narrow_sums
from compile.kernels.epilogue import NARROW_DISTANCES, NARROW_RESULTS, NARROW_SUMS
from compile.layers import ConvLayer, Shape
from quant.certificate import channel_bounds
from tests.compile.engines import Run, kernel_layers
from tests.compile.spelt_out import SPELT_OUT_ARM
from tests.compile.test_layers import CONVOLUTIONS, Case, conv_case, conv_reference, int8, same

Array = np.ndarray
FORMS: dict[str, Callable[..., list[Run]]] = {
    "kernel": partial(kernel_layers, narrow=True),
    "last kernel": partial(kernel_layers, narrow=True, plain=True),
    "kernel for arm, its dot product spelt out": partial(kernel_layers, narrow=True, cpu=SPELT_OUT_ARM),
}
TOO_COARSE = "coarse residual"  # by 9 bits: its largest values alone are over NARROW_RESULTS
CASES: dict[str, Case] = {name: case for name, case in CONVOLUTIONS.items() if name != TOO_COARSE} | {
    "residual coarser by two bits": conv_case((5, 7), (6, 24), kernel=1, residual_shift=3, relu=True),
    "eight channels to eight, strided": conv_case((7, 15), (32, 32), stride=2, groups=4),
    "eight channels to eight": conv_case((3, 9), (16, 16), groups=2, relu=True),
    "four channels to four": conv_case((5, 8), (16, 16), groups=4, residual_shift=6),
    "eight channels to four": conv_case((4, 13), (64, 32), groups=8),
    "groups that fill no block": conv_case((4, 6), (24, 15), groups=3, relu=True),
}


@pytest.fixture(scope="module", params=list(FORMS))
def runs(request: pytest.FixtureRequest) -> dict[str, Run]:
    return dict(zip(CASES, FORMS[request.param](list(CASES.values())), strict=True))


def narrow_arguments(layer: ConvLayer, shapes: list[Shape], seed: int) -> list[Array]:
    """x, weight, bias, weight_shift[, residual]: weights and biases as large as the bounds let them be."""
    rng = np.random.default_rng(seed)
    channels, in_residual = shapes[1][0], layer.residual_shift is not None
    residual_distance = layer.residual_shift - layer.out_shift if in_residual else 0
    farthest = 14 + min(0, residual_distance)  # beyond it the residual alone is too much
    distances = rng.integers(max(0, residual_distance), farthest + 1, channels)
    weight_shift = (distances + layer.out_shift - layer.in_shift).astype(np.int32)
    limits = np.minimum(NARROW_SUMS, (NARROW_RESULTS << distances) + (1 << distances) - 1)
    from_residual = (128 << (distances - residual_distance)) * in_residual
    weight = int8(rng, shapes[1], low=-127).astype(np.float64)
    largest = np.abs(weight).reshape(channels, -1).sum(axis=1) * 128
    share = np.minimum(1, rng.random(channels) * (limits - from_residual) / largest)
    weight = (weight * share.reshape(-1, 1, 1, 1)).astype(np.int8)
    of_products = np.abs(weight.astype(np.int64)).reshape(channels, -1).sum(axis=1) * 128
    bias = ((limits - from_residual - of_products) * rng.choice([-1, -0.001, 0, 0.001, 1], channels)).astype(np.int32)
    residual = [int8(rng, shapes[4])] if in_residual else []
    return [int8(rng, shapes[0]), weight, bias, weight_shift, *residual]


def reaches(layer: ConvLayer, _x: Array, weight: Array, bias: Array, weight_shift: Array, *_residual: Array) -> Array:
    """The bounds of the sums, and of the results."""
    bounds = channel_bounds(
        weight, weight_shift, bias, input_shift=layer.in_shift, input_max=128, residual_shift=layer.residual_shift
    )
    return bounds, bounds >> distances_of(layer, weight_shift)


@pytest.mark.parametrize("name", CASES)
def test_convolutions(runs: dict[str, Run], name: str) -> None:
    layer, shapes = CASES[name]
    assert isinstance(layer, ConvLayer)
    saturated = between = at_limit = 0
    for seed in range(10):
        arguments = narrow_arguments(layer, shapes, seed)
        assert has_narrow_sums(layer, *arguments[1:4])
        sums, results = reaches(layer, *arguments)
        at_limit += int((sums == NARROW_SUMS).sum() + (results == NARROW_RESULTS).sum())
        expected = conv_reference(layer, *arguments)
        same(runs[name](*arguments), expected)
        saturated += int((expected == 127).sum())
        between += int((np.abs(expected.astype(int)) < 127).sum())
    assert min(saturated, between, at_limit) > 0, "the inputs must saturate, must not, and must reach the limits"


def test_who_is_refused() -> None:
    layer, shapes = conv_case((3, 3), (4, 4), kernel=1, in_shift=5, out_shift=5)
    assert isinstance(layer, ConvLayer)
    weight = np.zeros(shapes[1], np.int8)

    def narrow(bias: int, shift: int) -> bool:
        return has_narrow_sums(layer, weight, np.full(4, bias, np.int32), np.full(4, shift, np.int32))

    assert narrow(NARROW_SUMS, 10)
    assert not narrow(NARROW_SUMS + 1, 10)
    assert narrow(NARROW_RESULTS, 0)
    assert not narrow(NARROW_RESULTS + 1, 0)
    assert not narrow(0, -1)
    assert narrow(0, NARROW_DISTANCES.stop - 1)
    assert not narrow(0, NARROW_DISTANCES.stop)


@pytest.mark.parametrize(("residual_shift", "narrow"), [(8, False), (7, True), (-2, True), (-4, False)])
def test_residuals_on_a_finer_grid_or_out_of_range_are_refused(residual_shift: int, narrow: bool) -> None:
    layer, shapes = conv_case((3, 3), (4, 4), kernel=1, residual_shift=residual_shift)
    assert isinstance(layer, ConvLayer)
    weight, bias = np.zeros(shapes[1], np.int8), np.zeros(4, np.int32)
    assert has_narrow_sums(layer, weight, bias, np.full(4, 2, np.int32)) is narrow
