"""Every layer twice, as a Relax function built by TVM alone and as our kernel, against the numpy reference: exactly."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from compile.layers import (
    AddLayer,
    AveragePool,
    ChannelArgmax,
    ConcatLayer,
    ConvLayer,
    FlattenMaps,
    Layer,
    QuantizePixels,
    Shape,
    Upsample2x,
    layer_of,
)
from quant import arith
from quant.arith import ACCUMULATOR_LIMIT
from quant.certificate import channel_bounds
from tests.compile.engines import Run, kernel_layers, plain_layers
from tests.compile.spelt_out import SPELT_OUT_ARM

Array = np.ndarray
FORMS: dict[str, Callable[..., list[Run]]] = {
    "relax": plain_layers,
    "kernel": kernel_layers,
    "last kernel": partial(kernel_layers, plain=True),
    "kernel for arm, its dot product spelt out": partial(kernel_layers, cpu=SPELT_OUT_ARM),
}
Case = tuple[Layer, list[Shape]]


def conv_case(hw: tuple[int, int], channels: tuple[int, int], kernel: int = 3, **settings: Any) -> Case:
    """Input (1, *hw, C); padding, stride, groups and shifts have the usual values where nothing else is said."""
    given = {"in_shift": 5, "out_shift": 5, "stride": 1, "padding": kernel // 2, "groups": 1, "relu": False} | settings
    layer = ConvLayer(**given)
    out_hw = tuple((size + 2 * layer.padding - kernel) // layer.stride + 1 for size in hw)
    shapes: list[Shape] = [(1, *hw, channels[0]), (channels[1], kernel, kernel, channels[0] // layer.groups)]
    shapes += [(channels[1],), (channels[1],)]
    if layer.residual_shift is not None:
        shapes.append((1, *out_hw, channels[1]))
    return layer, shapes


CONVOLUTIONS = {
    "odd channels": conv_case((6, 8), (5, 7)),
    "stem": conv_case((9, 11), (3, 8), stride=2, in_shift=7),
    "groups": conv_case((5, 6), (12, 18), groups=3, relu=True),
    "strided groups": conv_case((9, 7), (8, 8), stride=2, groups=4),
    "depthwise": conv_case((4, 9), (6, 6), groups=6, relu=True),
    "wide groups": conv_case((3, 4), (4, 80), groups=2),
    "pointwise": conv_case((4, 6), (33, 17), kernel=1, relu=True),
    "strided pointwise": conv_case((5, 7), (6, 16), kernel=1, stride=2),
    "one pixel": conv_case((1, 1), (16, 24), kernel=1),
    "one pixel, all border": conv_case((1, 1), (9, 5)),
    "prime width": conv_case((2, 13), (4, 16)),
    "large kernel": conv_case((7, 10), (3, 4), kernel=5),
    "no padding": conv_case((6, 9), (4, 6), padding=0),
    "residual": conv_case((5, 6), (8, 8), residual_shift=5, relu=True),
    "fine residual": conv_case((4, 5), (6, 12), groups=2, residual_shift=12, out_shift=4),
    "coarse residual": conv_case((5, 7), (6, 10), kernel=1, stride=2, residual_shift=-4, relu=True),
}
ADDS = {
    f"add {shifts}, {relu=}": (AddLayer(*shifts, relu), [(1, 256, 256, 1)] * 2)
    for *shifts, relu in [
        (4, 4, 4, True),
        (4, 6, 4, False),
        (7, 3, 5, True),
        (0, 12, -4, False),
        (12, -4, 12, False),
        (-4, -4, 12, True),
    ]
}
COPIES = {
    f"upsample {shape} {hw}": (Upsample2x(*hw, 4), [shape])
    for shape, hw in [
        ((1, 3, 5, 7), (6, 10)),
        ((1, 3, 5, 1), (5, 9)),
        ((1, 2, 3, 17), (4, 5)),
        ((1, 4, 2, 16), (7, 4)),
        ((1, 1, 1, 3), (1, 1)),
        ((1, 1, 1, 3), (2, 2)),
    ]
}
CONCATS = {
    f"concat {layer}": (layer, [(1, 3, 7, channels) for channels in sizes])
    for layer, sizes in [
        (ConcatLayer((4,), 4), (70,)),
        (ConcatLayer((7,), 2), (70,)),
        (ConcatLayer((4, 6), 4), (16, 3)),
        (ConcatLayer((-4, 12, 5), 5), (1, 31, 40)),
        (ConcatLayer((12, 12), -4), (40, 40)),
        (ConcatLayer((-4, 3), 12), (40, 1)),
    ]
}
POOLS = {
    f"pool {layer}": (layer, [(1, 9, 11, 5)])
    for layer in [
        AveragePool(2, 2, 4, 4),
        AveragePool(2, 1, 4, 6),
        AveragePool(4, 3, 3, 12),
        AveragePool(8, 1, 12, -4),
        AveragePool(1, 2, 5, 4),
    ]
}
ARGMAXES = {f"argmax of {channels}": (ChannelArgmax(), [(1, 5, 9, channels)]) for channels in (1, 2, 12, 256)}
FLATTENED = {
    "flatten one": (FlattenMaps(4), [(1, 3, 5, 8)]),
    "flatten three": (FlattenMaps(2), [(1, 5, 3, 6), (1, 2, 2, 2), (1, 1, 1, 4)]),
}
PIXELS = {"pixels": (QuantizePixels(), [(1, 16, 16, 3)])}
CASES: dict[str, Case] = CONVOLUTIONS | ADDS | COPIES | CONCATS | POOLS | ARGMAXES | FLATTENED | PIXELS


@pytest.fixture(scope="module", params=list(FORMS))
def runs(request: pytest.FixtureRequest) -> dict[str, Run]:
    return dict(zip(CASES, FORMS[request.param](list(CASES.values())), strict=True))


def int8(rng: np.random.Generator, shape: Sequence[int], low: int = -128) -> Array:
    """The extremes drawn often."""
    extremes = rng.choice([low, 127], shape)
    return np.where(rng.random(shape) < 0.3, extremes, rng.integers(low, 128, shape)).astype(np.int8)


def conv_arguments(layer: ConvLayer, shapes: list[Shape], seed: int) -> list[Array]:
    """x, weight, bias, weight_shift[, residual], as wild as the certificate allows."""
    rng = np.random.default_rng(seed)
    x, weight = int8(rng, shapes[0]), int8(rng, shapes[1], low=-127)
    channels = shapes[1][0]
    bias = (rng.standard_normal(channels) * 2.0 ** rng.uniform(0, 22, channels)).astype(np.int32)
    weight_shift = rng.integers(-8, 15, channels).astype(np.int32)
    known = {"input_shift": layer.in_shift, "residual_shift": layer.residual_shift, "input_max": 128}
    over = channel_bounds(weight, weight_shift, bias, **known) >= ACCUMULATOR_LIMIT
    weight[over], bias[over] = 0, 0
    if layer.residual_shift is not None:
        weight_shift[over] = np.clip(layer.residual_shift - layer.in_shift, -8, 14)
    assert (channel_bounds(weight, weight_shift, bias, **known) < ACCUMULATOR_LIMIT).all()
    residual = [int8(rng, shapes[4])] if layer.residual_shift is not None else []
    return [x, weight, bias, weight_shift, *residual]


def conv_reference(layer: ConvLayer, x: Array, weight: Array, bias: Array, shift: Array, *residual: Array) -> Array:
    return arith.conv_layer(
        x,
        layer.in_shift,
        weight,
        shift.astype(np.int64),
        bias,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        relu=layer.relu,
        out_shift=layer.out_shift,
        residual=residual[0] if residual else None,
        residual_shift=layer.residual_shift,
    )


def same(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(runs: dict[str, Run], name: str) -> None:
    layer, shapes = CONVOLUTIONS[name]
    saturated = between = 0
    for seed in range(10):
        arguments = conv_arguments(layer, shapes, seed)
        expected = conv_reference(layer, *arguments)
        same(runs[name](*arguments), expected)
        saturated += int((expected == 127).sum())
        between += int((np.abs(expected.astype(int)) < 127).sum())
    assert min(saturated, between) > 0, "the inputs must saturate, and must not"


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(list(CONVOLUTIONS)), st.integers(0, 2**32 - 1))
def test_any_convolution(runs: dict[str, Run], name: str, seed: int) -> None:
    layer, shapes = CONVOLUTIONS[name]
    arguments = conv_arguments(layer, shapes, seed)
    same(runs[name](*arguments), conv_reference(layer, *arguments))


@pytest.mark.parametrize("name", ADDS)
def test_adds_of_every_pair_of_int8(runs: dict[str, Run], name: str) -> None:
    layer = ADDS[name][0]
    a, b = (grid.astype(np.int8)[None, ..., None] for grid in np.mgrid[-128:128, -128:128])
    expected = arith.add_layer(a, layer.a_shift, b, layer.b_shift, relu=layer.relu, out_shift=layer.out_shift)
    same(runs[name](a, b), expected)


@pytest.mark.parametrize("name", COPIES)
def test_upsampling(runs: dict[str, Run], name: str) -> None:
    layer, (shape,) = COPIES[name]
    x = np.arange(np.prod(shape)).reshape(shape).astype(np.int8)
    same(runs[name](x), arith.upsample2x(x, (layer.height, layer.width)))


@pytest.mark.parametrize("name", CONCATS)
def test_concats(runs: dict[str, Run], name: str) -> None:
    layer, shapes = CONCATS[name]
    for seed in range(3):
        inputs = [int8(np.random.default_rng(seed + 9 * index), shape) for index, shape in enumerate(shapes)]
        expected = arith.concat(list(zip(inputs, layer.in_shifts, strict=True)), layer.out_shift)
        same(runs[name](*inputs), expected)


@pytest.mark.parametrize("name", POOLS)
def test_average_pools(runs: dict[str, Run], name: str) -> None:
    layer, (shape,) = POOLS[name]
    rng = np.random.default_rng(3)
    for x in (int8(rng, shape), rng.integers(-3, 4, shape).astype(np.int8), np.full(shape, -128, np.int8)):
        expected = arith.average_pool(x, layer.kernel, layer.stride, layer.in_shift, layer.out_shift)
        same(runs[name](x), expected)


@pytest.mark.parametrize("name", ARGMAXES)
def test_argmaxes_with_ties(runs: dict[str, Run], name: str) -> None:
    (shape,) = ARGMAXES[name][1]
    rng = np.random.default_rng(4)
    for values in ([-128, 127], [-1, 0, 1], [5], range(-128, 128)):
        x = rng.choice(np.array(values, np.int8), shape)
        same(runs[name](x), arith.channel_argmax(x))


@pytest.mark.parametrize("name", FLATTENED)
def test_flattened_maps(runs: dict[str, Run], name: str) -> None:
    layer, shapes = FLATTENED[name]
    maps = [int8(np.random.default_rng(index), shape) for index, shape in enumerate(shapes)]
    rows = [
        value[0, row, column].reshape(-1, layer.fields)
        for value in maps
        for row, column in np.ndindex(value.shape[1:3])
    ]
    same(runs[name](*maps), np.concatenate(rows))


def test_pixels(runs: dict[str, Run]) -> None:
    picture = np.arange(768).reshape(1, 16, 16, 3).astype(np.uint8)
    same(runs["pixels"](picture), arith.quantize_pixels(picture))


@pytest.mark.parametrize("name", CASES)
def test_settings_are_read_back_from_a_file(name: str) -> None:
    layer, shapes = CASES[name]
    function = layer.build(shapes)
    assert layer_of(function) == layer
    module = tvm.IRModule({relax.GlobalVar("layer"): function})
    assert layer_of(tvm.ir.load_json(tvm.ir.save_json(module))["layer"]) == layer
