"""Ops that multiply by weights: convolutions, matrix products, products with constants. All become convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.foreign.model import attributes_of, pair
from compile.foreign.network import Convolution, Int8, Pads, Pair, Tensor
from compile.foreign.reader import Reader, by_axis
from compile.foreign.states import Floats, Open, Quantized, Weights
from compile.foreign.windows import pads_of, swept
from quant.arith import INT8_MIN
from quant.errors import QuantError
from quant.fixed_point import multiplier

INT32_LIMIT = 1 << 31


@dataclass(frozen=True)
class Window:
    """How a convolution goes over its input."""

    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


def convolution(reader: Reader, node: onnx.NodeProto) -> Open:
    """Conv: weight (O, I / groups, kh, kw), one scale or one for each output channel."""
    x, weights = reader.tensor(node), weights_of(reader, node, 1, axis=0)
    values = attributes_of(node)
    window = Window(
        pair(values.get("strides", (1, 1))),
        pads_of(reader, node),
        pair(values.get("dilations", (1, 1))),
        int(values.get("group", 1)),
    )
    weight = weights.integers.transpose(0, 2, 3, 1)
    factors = factors_of(weights.scale, len(weight))
    return product(reader, node, x, weight, factors, window, bias_of(reader, node, 2))


def factors_of(scale: NDArray[np.float32], channels: int) -> list[Fraction]:
    """The exact scale of every output channel's weights."""
    return [Fraction(float(value)) for value in np.broadcast_to(scale.ravel(), channels)]


def linear(reader: Reader, node: onnx.NodeProto) -> Open:
    """Gemm and MatMul of a vector (1, K), which may be a map that was flattened."""
    values = attributes_of(node)
    if values.get("alpha", 1.0) != 1.0 or values.get("beta", 1.0) != 1.0 or values.get("transA", 0):
        raise reader.model.error(node, "alpha and beta must be 1 and transA 0; export it so")
    transposed = bool(values.get("transB", 0))
    weights = weights_of(reader, node, 1, axis=0 if transposed else 1)
    if weights.integers.ndim != 2 or len(reader.model.shapes[node.input[0]]) != 2:
        raise reader.model.error(node, "only a vector (1, K) times a matrix has an integer form; flatten before it")
    x = reader.quantized(node).tensor
    matrix = weights.integers if transposed else weights.integers.T
    _, height, width, channels = x.shape
    if matrix.shape[1] != height * width * channels:
        raise reader.model.error(
            node, f"a matrix over {matrix.shape[1]} values does not fit an input of {height * width * channels}"
        )
    # a vector's order is that of the ONNX: channel, row, column
    weight = matrix.reshape(len(matrix), channels, height, width).transpose(0, 2, 3, 1)
    factors = factors_of(weights.scale, len(weight))
    bias = bias_of(reader, node, 2)
    result = product(reader, node, x, weight, factors, Window(), bias)
    if node.op_type == "Gemm" or bias is not None:
        return result
    return replace(result, add_bias=lambda value: product(reader, node, x, weight, factors, Window(), value))


def times_constant(reader: Reader, node: onnx.NodeProto) -> Open:
    """Mul by one number, or by one for each channel: a convolution 1x1 with a group to each channel."""
    places = [place for place in (0, 1) if isinstance(reader.state(node, place), Quantized)]
    if len(places) != 1:
        raise reader.model.error(node, "only a tensor times a constant has an integer form")
    x, state = reader.tensor(node, places[0]), reader.state(node, 1 - places[0])
    channels = x.shape[3]
    if isinstance(state, Weights):
        if state.integers.dtype != np.int8:
            raise reader.model.error(node, "its constant is not quantized to int8")
        integers, scales = state.integers, by_axis(state.scale, state.axis, state.integers.ndim)
        weight = per_channel(reader, node, integers, channels)
        factors = [Fraction(float(v)) for v in per_channel(reader, node, scales + 0 * integers, channels)]
    elif isinstance(state, Floats):
        real = per_channel(reader, node, state.values.astype(np.float32), channels)
        weight = np.sign(real)
        factors = [Fraction(float(abs(value))) if value else Fraction(1) for value in real]
    else:
        raise reader.model.error(node, "only a tensor times a constant has an integer form")
    kernel = weight.astype(np.int8).reshape(channels, 1, 1, 1)
    return product(reader, node, x, kernel, factors, Window(groups=channels), None)


def per_channel(reader: Reader, node: onnx.NodeProto, values: NDArray, channels: int) -> NDArray:
    """(C,) of a constant that broadcasts over rows and columns."""
    if values.size == 1:
        return np.full(channels, values.ravel()[0])
    from_the_right = 1 if len(reader.model.shapes[node.output[0]]) == 2 else 3
    if values.size != channels or (1, 1, *values.shape)[-from_the_right] != channels:
        raise reader.model.error(node, f"a constant of shape {values.shape} is none for each channel")
    return values.reshape(channels)


def weights_of(reader: Reader, node: onnx.NodeProto, place: int, *, axis: int) -> Weights:
    """int8 weights with one scale, or one for each entry of `axis`."""
    state = reader.state(node, place)
    if not isinstance(state, Weights) or state.integers.dtype != np.int8:
        raise reader.model.error(node, f"its weight {node.input[place]} is not quantized to int8; quantize the weights")
    if state.scale.size > 1 and state.axis % state.integers.ndim != axis:
        raise reader.model.error(node, f"its weight has a scale for each entry of axis {state.axis}, not {axis}")
    return state


def bias_of(reader: Reader, node: onnx.NodeProto, place: int) -> NDArray[np.float64] | None:
    """Real values (O,) of a bias; None where there is none."""
    if place >= len(node.input) or not node.input[place]:
        return None
    return real_values(reader, node, place).reshape(-1)


def real_values(reader: Reader, node: onnx.NodeProto, place: int) -> NDArray[np.float64]:
    """Of a constant, quantized or not; exact."""
    value = reader.constant(node, place)
    assert value is not None, "callers know that the input is there"
    return value.astype(np.float64)


def product(
    reader: Reader,
    node: onnx.NodeProto,
    x: Tensor,
    weight: Int8,
    factors: Sequence[Fraction],
    window: Window,
    bias: NDArray[np.float64] | None,
) -> Open:
    """A convolution of weights OHWI with a scale for each output channel. QuantError where its sums leave int32."""
    if weight.shape[3] * window.groups != x.shape[3] or len(weight) % window.groups:
        raise QuantError(
            f"weights of {len(weight)} channels over {weight.shape[3]} in {window.groups} groups do not fit an input "
            f"of {x.shape[3]}"
        )
    hw = swept(x.shape[1:3], weight.shape[1:3], window.stride, window.pads, window.dilation)
    shape = reader.agreed(node, (x.shape[0], *hw, len(weight)))
    integers = np.zeros(len(weight), np.int64)
    if bias is not None:
        if len(bias) != len(weight):
            raise QuantError(f"a bias of {len(bias)} values does not fit {len(weight)} channels")
        # the accumulator's grid; a bias that was quantized lies on it but for the rounding of its own scale
        grids = [float(factor * Fraction(x.scale)) for factor in factors]
        rounded = np.rint(bias / grids)
        if not (np.abs(rounded) < INT32_LIMIT).all():
            raise QuantError(f"its bias {np.abs(bias).max():g} is over int32 on the accumulator's grid")
        integers = rounded.astype(np.int64)
    largest = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1) * -INT8_MIN + np.abs(integers)
    if largest.max() >= INT32_LIMIT:
        raise QuantError(f"sums of channel {largest.argmax()} reach {largest.max()}, over int32; use smaller weights")

    def make(scale: float, clip: Pair) -> Convolution:
        found = [multiplier(factor * Fraction(x.scale) / Fraction(scale)) for factor in factors]
        m, n = (np.array(values, np.int64) for values in zip(*((entry.m, entry.n) for entry in found), strict=True))
        return Convolution(
            np.ascontiguousarray(weight),
            integers,
            window.stride,
            window.pads,
            window.dilation,
            window.groups,
            m,
            n,
            clip,
        )

    return Open(make, (x.name,), shape, node.name or node.output[0], clips=True)
