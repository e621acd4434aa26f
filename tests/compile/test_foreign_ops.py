"""Every op of foreign models: with powers of two the reference is ONNX Runtime, and compiled code is the reference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from compile.foreign import reference
from compile.foreign.network import Network
from compile.foreign.relax_writer import to_relax
from tests.compile.foreign_graphs import Graph, in_float, network_of

Make = Callable[[Graph, str, float], str]
TWO, ODD = 1 / 32, 0.0291  # scales of the inputs


def conv(
    g: Graph, x: str, s: float, *, groups: int = 1, kernel: int = 3, out: int = 8, bias: bool = True, **more: Any
) -> str:
    scales = s * np.float32([0.25, 0.5] * (out // 2))
    inputs = [x, g.weights((out, 6 // groups, kernel, kernel), scales)]
    if bias:
        inputs.append(g.weights((out,), (np.float32(s) * scales).astype(np.float32), dtype=np.int32))
    return g.node("Conv", inputs, group=groups, **more)


def plain(g: Graph, x: str, s: float) -> str:
    return conv(g, x, s, pads=[1, 1, 1, 1])


def uneven(g: Graph, x: str, s: float) -> str:
    return conv(g, x, s, pads=[0, 2, 1, 0], strides=[2, 1])


def dilated(g: Graph, x: str, s: float) -> str:
    return conv(g, x, s, pads=[2, 2, 2, 2], dilations=[2, 2], bias=False)


def depthwise(g: Graph, x: str, s: float) -> str:
    return conv(g, x, s, groups=6, out=6, pads=[1, 1, 1, 1])


def two_groups_relu(g: Graph, x: str, s: float) -> str:
    return g.node("Relu", [conv(g, x, s, groups=2, strides=[2, 2])])


def relu6_in_the_layer(g: Graph, x: str, s: float) -> str:
    low, high = g.constant(np.float32(0)), g.constant(np.float32(6))
    return g.node("Clip", [conv(g, x, s, kernel=1), low, high])


def float_weight(g: Graph, x: str, s: float) -> str:
    """Quantized in the graph, as torch and Brevitas export it; the bias in float, on its grid."""
    weight = g.constant(g.rng.uniform(-1, 1, (4, 6, 1, 1)).astype(np.float32))
    scale = np.full(4, s, np.float32)
    bias = g.constant((g.rng.integers(-999, 999, 4) * (s * s)).astype(np.float32))
    return g.node("Conv", [x, g.pair(weight, scale, axis=0), bias])


def gemm(g: Graph, x: str, s: float) -> str:
    flat = g.node("Flatten", [x])
    scales = np.full(10, s / 8, np.float32)
    bias = g.weights((10,), (np.float32(s) * scales).astype(np.float32), dtype=np.int32)
    return g.node("Gemm", [flat, g.weights((10, 6 * 9 * 7), scales), bias], transB=1)


def matmul(g: Graph, x: str, s: float) -> str:
    flat = g.node("Reshape", [g.pair(g.node("GlobalAveragePool", [x]), s), g.constant(np.int64([1, 6]))])
    product = g.node("MatMul", [flat, g.weights((6, 10), s / 8)])
    return g.node("Add", [product, g.constant((g.rng.integers(-99, 99, 10) * (s * s / 8)).astype(np.float32))])


def matmul_of_transposed_weights(g: Graph, x: str, s: float) -> str:
    """As torch exports a linear layer without a bias."""
    flat = g.node("Flatten", [g.pair(g.node("GlobalAveragePool", [x]), s)])
    weights = g.weights((10, 6), np.full(10, s) * np.float32([1, 0.5] * 5))
    return g.node("MatMul", [flat, g.node("Transpose", [weights], perm=[1, 0])])


def relu_of_matmul_before_an_add(g: Graph, x: str, s: float) -> str:
    """The Relu must not be lost in the product's bias."""
    flat = g.node("Flatten", [g.pair(g.node("GlobalAveragePool", [x]), s)])
    cut = g.pair(g.node("Relu", [g.node("MatMul", [flat, g.weights((6, 10), s / 8)])]), s / 4)
    return g.node("Add", [cut, g.weights((1, 10), s / 4)])


def bias_without_zero_point(g: Graph, x: str, s: float) -> str:
    """As ONNX Runtime's quantizer and others write it: the type is that of the integers."""
    scales = np.full(8, s * s, np.float32)
    bias = g.node(
        "DequantizeLinear", [g.constant(g.rng.integers(-99, 99, 8).astype(np.int32)), g.constant(scales)], axis=0
    )
    return g.node("Conv", [x, g.weights((8, 6, 1, 1), np.full(8, s, np.float32)), bias])


def times_a_scalar(g: Graph, x: str, s: float) -> str:
    return g.node("Mul", [x, g.weights((), s)])


def add(g: Graph, x: str, s: float) -> str:
    return g.node("Add", [g.pair(plain(g, x, s), 2 * s), g.pair(conv(g, x, s, kernel=1), s)])


def flattened_sum(g: Graph, x: str, s: float) -> str:
    """Of two maps that were flattened before: the order of a vector is not that of a map here."""
    other = g.pair(conv(g, x, s, kernel=1, out=6), s)
    return g.node("Add", [g.node("Flatten", [x]), g.node("Flatten", [other])])


def gemm_of_a_flattened_sum(g: Graph, x: str, s: float) -> str:
    return g.node("Gemm", [g.pair(flattened_sum(g, x, s), 2 * s), g.weights((6 * 9 * 7, 10), s / 8)])


def concat_of_flattened_sums(g: Graph, x: str, s: float) -> str:
    return g.node("Concat", [g.pair(flattened_sum(g, x, s), scale) for scale in (s, 2 * s)], axis=1)


def gemm_of_a_flattened_concat(g: Graph, x: str, s: float) -> str:
    joined = g.pair(concat_of_flattened_sums(g, x, s), 2 * s)
    return g.node("Gemm", [joined, g.weights((10, 2 * 6 * 9 * 7), np.full(10, s / 8))], transB=1)


def add_constant_to_a_flattened_map(g: Graph, x: str, s: float) -> str:
    return g.node("Add", [g.weights((1, 6 * 9 * 7), s / 2), g.node("Flatten", [x])])


def add_constants_to_one(g: Graph, x: str, s: float) -> str:
    """Two constants are summed first, as layers of their own."""
    return g.node("Add", [x, g.pair(g.node("Add", [g.weights((1, 6, 1, 1), s / 4), g.weights((1, 6, 9, 7), s)]), s)])


def add_constant(g: Graph, x: str, s: float) -> str:
    return g.node("Add", [x, g.weights((1, 6, 1, 1), s / 4)])


def times_one_number(g: Graph, x: str, s: float) -> str:
    return g.node("Mul", [x, g.constant(np.float32(-0.75))])


def times_channels(g: Graph, x: str, s: float) -> str:
    return g.node("Mul", [x, g.weights((1, 6, 1, 1), s / 2)])


def concat(g: Graph, x: str, s: float) -> str:
    return g.node("Concat", [x, g.pair(conv(g, x, s, kernel=1), 4 * s)], axis=1)


def relu(g: Graph, x: str, s: float) -> str:
    return g.node("Relu", [x])


def relu_of_a_concat(g: Graph, x: str, s: float) -> str:
    return g.node("Relu", [concat(g, x, s)])


def clip_of_a_mean(g: Graph, x: str, s: float) -> str:
    return g.node("Clip", [average_pool(g, x, s), g.constant(np.float32(-0.2)), g.constant(np.float32(0.5))])


def relu_of_a_bilinear(g: Graph, x: str, s: float) -> str:
    return g.node("Relu", [bilinear(g, x, s)])


def relu_of_a_padding(g: Graph, x: str, s: float) -> str:
    return g.node("Relu", [pad_with_a_number(g, x, s)])


def leaky(g: Graph, x: str, s: float) -> str:
    return g.node("LeakyRelu", [x], alpha=0.125)


def clip(g: Graph, x: str, s: float) -> str:
    return g.node("Clip", [x, g.constant(np.float32(-0.4)), g.constant(np.float32(1.3))])


def max_pool(g: Graph, x: str, s: float) -> str:
    return g.node("MaxPool", [x], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])


def global_max_pool(g: Graph, x: str, s: float) -> str:
    return g.node("GlobalMaxPool", [g.pair(conv(g, x, s, out=16), 8 * s)])


def average_pool(g: Graph, x: str, s: float) -> str:
    return g.node("AveragePool", [x], kernel_shape=[2, 4], strides=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)


def nearest(g: Graph, x: str, s: float) -> str:
    scales = g.constant(np.float32([1, 1, 2, 2]))
    rule = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return g.node("Resize", [x, "", scales], **rule)


def nearest_by_default(g: Graph, x: str, s: float) -> str:
    """Without a nearest_mode: a half goes down, which copies, too. Opset 18 may give the two axes alone."""
    rule = {"coordinate_transformation_mode": "asymmetric", "axes": [3, -2]}
    return g.node("Resize", [x, "", g.constant(np.float32([2, 2]))], **rule)


def bilinear_over_two_axes(g: Graph, x: str, s: float) -> str:
    return g.node("Resize", [x, "", g.constant(np.float32([2, 2]))], mode="linear", axes=[2, 3])


def bilinear(g: Graph, x: str, s: float) -> str:
    sizes = g.constant(np.int64([1, 6, 18, 14]))
    return g.node("Resize", [x, "", "", sizes], mode="linear", coordinate_transformation_mode="half_pixel")


def cut(g: Graph, x: str, s: float) -> str:
    parts = [g.constant(np.int64(values)) for values in ([1, -6, 0], [5, 8, 100], [1, 2, 3])]
    return g.node("Slice", [x, *parts])


def pad(g: Graph, x: str, s: float) -> str:
    return g.node("Pad", [x, g.constant(np.int64([0, 1, 0, 2, 0, 0, 3, 1]))])


def pad_with_a_number(g: Graph, x: str, s: float) -> str:
    """The number is none of the input's own integers."""
    return g.node("Pad", [x, g.constant(np.int64([0, 1, 0, 2, 0, 0, 3, 1])), g.constant(np.float32(0.3))])


def pad_with_a_quantized_number(g: Graph, x: str, s: float) -> str:
    return g.node("Pad", [x, g.constant(np.int64([0, 0, 1, 2, 0, 0, 3, 1])), g.weights((), s / 4)])


def change_of_scale(g: Graph, x: str, s: float) -> str:
    return x


OPS: list[Make] = [
    plain,
    uneven,
    dilated,
    depthwise,
    two_groups_relu,
    relu6_in_the_layer,
    float_weight,
    gemm,
    matmul,
    matmul_of_transposed_weights,
    relu_of_matmul_before_an_add,
    bias_without_zero_point,
    times_a_scalar,
    add,
    add_constant,
    flattened_sum,
    gemm_of_a_flattened_sum,
    concat_of_flattened_sums,
    gemm_of_a_flattened_concat,
    add_constant_to_a_flattened_map,
    add_constants_to_one,
    times_one_number,
    times_channels,
    concat,
    relu,
    relu_of_a_concat,
    clip_of_a_mean,
    relu_of_a_bilinear,
    relu_of_a_padding,
    leaky,
    clip,
    max_pool,
    global_max_pool,
    average_pool,
    nearest,
    nearest_by_default,
    bilinear,
    bilinear_over_two_axes,
    cut,
    pad,
    pad_with_a_number,
    pad_with_a_quantized_number,
    change_of_scale,
]
# scales over that of the input
OUT = {"plain": 8, "uneven": 8, "dilated": 8, "gemm": 16, "add": 4, "matmul": 1, "global_max_pool": 8}
OUT |= {"gemm_of_a_flattened_sum": 64, "gemm_of_a_flattened_concat": 64}


def graph(make: Make, scale: float, path: Path) -> Path:
    g = Graph()
    out = scale * OUT.get(make.__name__, 2)
    return g.finish(path, g.pair(make(g, g.pair("x", scale), scale), out), opset=18)


def compiled(network: Network, picture: np.ndarray) -> dict[str, np.ndarray]:
    machine = relax.VirtualMachine(tvm.compile(to_relax(network), tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    results = machine["main"](tvm.runtime.tensor(picture))
    return {entry.name: value.numpy() for entry, value in zip(network.outputs, results, strict=True)}


@pytest.mark.parametrize("make", OPS, ids=lambda make: make.__name__)
def test_with_powers_of_two_it_is_onnx_runtime(make: Make, tmp_path: Path) -> None:
    path = graph(make, TWO, tmp_path / "model.onnx")
    _, network = network_of(path)
    for seed in range(3):
        picture = Graph().picture(seed)
        (found,) = reference.run(network, picture).values()
        expected = in_float(path, picture)
        assert np.array_equal(found, expected)
        assert len(np.unique(expected)) > 5


@pytest.mark.parametrize("scale", [TWO, ODD], ids=["powers of two", "other scales"])
@pytest.mark.parametrize("make", OPS, ids=lambda make: make.__name__)
def test_the_compiled_code_is_the_reference(make: Make, scale: float, tmp_path: Path) -> None:
    path = graph(make, scale, tmp_path / "model.onnx")
    _, network = network_of(path)
    picture = Graph().picture(1)
    (name,) = (entry.name for entry in network.outputs)
    found, expected = compiled(network, picture)[name], reference.run(network, picture)[name]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(found, expected)
    # where float and integers round the same sum they are a step apart at most
    step = scale * OUT.get(make.__name__, 2)
    assert np.abs(found - in_float(path, picture)).max() < 1.01 * step


def test_a_sigmoid_is_a_table(tmp_path: Path) -> None:
    """ONNX Runtime's own is an approximation: the same but for a tie."""
    g = Graph()
    path = g.finish(tmp_path / "model.onnx", g.pair(g.node("Sigmoid", [g.pair("x", TWO)]), 1 / 128))
    _, network = network_of(path)
    picture = g.picture(1)
    (found,) = reference.run(network, picture).values()
    assert np.abs(found - in_float(path, picture)).max() <= 1 / 128
    assert np.array_equal(found, next(iter(compiled(network, picture).values())))


@pytest.mark.parametrize("keepdims", [0, 1])
def test_an_argmax_takes_the_first(keepdims: int, tmp_path: Path) -> None:
    g = Graph()
    path = g.finish(tmp_path / "model.onnx", g.node("ArgMax", [g.pair("x", 1.0)], axis=1, keepdims=keepdims))
    _, network = network_of(path)
    picture = g.picture(1)  # in steps of 1 there are many ties
    expected = in_float(path, picture)
    for results in (reference.run(network, picture), compiled(network, picture)):
        (found,) = results.values()
        assert found.dtype == np.int64
        assert np.array_equal(found, expected)


def test_a_mean_over_no_power_of_two_is_the_exact_rational(tmp_path: Path) -> None:
    g = Graph()
    path = g.finish(
        tmp_path / "model.onnx", g.pair(g.node("AveragePool", [g.pair("x", TWO)], kernel_shape=[3, 3]), TWO)
    )
    _, network = network_of(path)
    picture = g.picture(1)
    values = np.clip(np.rint(picture * 32), -128, 127).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3), axis=(2, 3)).sum(axis=(-2, -1))
    expected = np.rint(windows / 9) / 32  # a ninth is never a tie
    for results in (reference.run(network, picture), compiled(network, picture)):
        assert np.array_equal(next(iter(results.values())), expected.astype(np.float32))
