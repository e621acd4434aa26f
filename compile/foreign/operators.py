"""What every other op of a foreign graph becomes, and which ops there are."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.foreign.model import ForeignModel, attributes_of, name_of, pair
from compile.foreign.network import (
    Bilinear2x,
    Concat,
    Constant,
    MaxPool,
    MeanPool,
    Nearest2x,
    Network,
    Pad,
    Pads,
    Pair,
    Slice,
    Sum,
    Table,
    Tensor,
)
from compile.foreign.products import convolution, linear, real_values, times_constant
from compile.foreign.reader import SAME, Reader, Shape, Visitor, clamp_to
from compile.foreign.states import Floats, Largest, Open, Quantized, State, Weights, on_grid
from compile.foreign.windows import pads_of, swept
from quant.arith import INT8_MAX, INT8_MIN
from quant.fixed_point import common_multipliers, multiplier, ratio, reals, table

Function = Callable[[NDArray[np.float32]], NDArray[np.float32]]
EXACT_SHIFT = 16  # of scales that a mean stays an exact rational for: what it is multiplied by has to stay small
BILINEAR = 16  # the weights of four pixels come in these parts
WHOLE_MAP = {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}
HALF_PIXEL = {"half_pixel", "pytorch_half_pixel"}  # they differ where one pixel is made, and twice as many are two
COPIES = {  # coordinates and nearest_mode of an upsampling by 2 that makes two of every pixel
    ("asymmetric", "floor"),
    ("asymmetric", "round_prefer_floor"),
    ("half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_floor"),
}


def read_network(model: ForeignModel) -> Network:
    """The integer network of a model. CompileError naming the node that has none."""
    return Reader(model, VISITORS).network()


def add(reader: Reader, node: onnx.NodeProto) -> State:
    """Two tensors; a tensor and a constant; a matrix product and its bias."""
    states = [reader.state(node, place) for place in (0, 1)]
    for place, state in enumerate(states):
        other = states[1 - place]
        if isinstance(state, Open):
            if state.add_bias is None or not isinstance(other, Floats | Weights):
                raise reader.model.error(node, f"its input {node.input[place]} is not quantized; quantize it before")
            return state.add_bias(real_values(reader, node, 1 - place).reshape(-1))
    flattened = [state.tensor.shape for state in states if isinstance(state, Quantized) and state.flat]
    shape = flattened[0] if flattened else reader.shape(node.output[0])
    tensors = [summand(reader, node, place, shape) for place in (0, 1)]

    def make(scale: float, clip: Pair) -> Sum:
        return Sum(*common_multipliers([ratio(entry.scale, over=scale) for entry in tensors]), clip)

    names = tensors[0].name, tensors[1].name
    return Open(make, names, shape, name_of(node), clips=True, flat=bool(flattened))


def summand(reader: Reader, node: onnx.NodeProto, place: int, shape: Shape) -> Tensor:
    """An input of a sum of that shape NHWC; one that the model holds becomes a layer."""
    state, of_onnx = reader.state(node, place), reader.model.shapes[node.output[0]]
    if isinstance(state, Quantized):
        if reader.model.shapes[node.input[place]] != of_onnx or state.tensor.shape != shape:
            raise reader.model.error(node, f"only tensors of one shape can be added, {node.input[place]} has another")
        return state.tensor
    if not isinstance(state, Weights) or state.integers.dtype != np.int8 or state.scale.size != 1:
        raise reader.model.error(node, f"its constant {node.input[place]} is not quantized to int8 with one scale")
    batch, height, width, channels = shape
    value = np.broadcast_to(state.integers, of_onnx).reshape(batch, channels, height, width).transpose(0, 2, 3, 1)
    output = Tensor(f"{node.output[0]}:constant{place}", shape, float(state.scale.ravel()[0]))
    return reader.emit(Constant(np.ascontiguousarray(value)), (), output, name_of(node)).tensor


def concat(reader: Reader, node: onnx.NodeProto) -> Open:
    """Over the channels. Flattened maps of one size stay maps: channel by channel is the order of their vectors."""
    rank = len(reader.model.shapes[node.output[0]])
    if attributes_of(node)["axis"] % rank != 1:
        raise reader.model.error(node, "only a concat over the channels has an integer form")
    states = [reader.quantized(node, place) for place in range(len(node.input))]
    tensors = [state.tensor for state in states]
    sizes = sorted({entry.shape[1:3] for entry in tensors})
    if len(sizes) > 1:
        raise reader.model.error(
            node, f"flattened maps of {sizes[0]} and {sizes[1]} cannot be joined; pool them before"
        )

    def make(scale: float, clip: Pair) -> Concat:
        found = [multiplier(ratio(entry.scale, over=scale)) for entry in tensors]
        return Concat(tuple(entry.m for entry in found), tuple(entry.n for entry in found))

    shape = (tensors[0].shape[0], *sizes[0], sum(entry.shape[3] for entry in tensors))
    flat = any(state.flat for state in states)
    return Open(make, tuple(entry.name for entry in tensors), shape, name_of(node), flat=flat)


def cut(reader: Reader, node: onnx.NodeProto) -> State:
    """Relu and Clip: part of the layer before, or a table; a Clip of integers is a clamp."""
    low, high, of_integers = 0.0, np.inf, False
    if node.op_type == "Clip":
        bounds = [reader.constant(node, place) for place in (1, 2)]
        low, high = (
            default if value is None else float(value.ravel()[0])
            for value, default in zip(bounds, (-np.inf, np.inf), strict=True)
        )
        of_integers = any(value is not None and value.dtype == np.int8 for value in bounds)
    low = min(low, high)  # as ONNX has it, all becomes the larger bound's equal
    state = reader.state(node, 0)
    if of_integers or isinstance(state, Floats):
        return clamp(reader, node, low, high)
    if isinstance(state, Open):
        # behind it a bias would be another layer's
        return replace(state, low=min(max(state.low, low), high), high=min(max(state.high, low), high), add_bias=None)
    return unary(reader, node, lambda x: np.clip(x, np.float32(low), np.float32(high)))


def clamp(reader: Reader, node: onnx.NodeProto, low: float, high: float) -> State:
    """Of constants, and of integers before their DequantizeLinear: so Brevitas narrows their range."""
    state = reader.state(node, 0)
    if isinstance(state, Floats):
        return Floats(np.clip(state.values, low, high).astype(state.values.dtype))
    if isinstance(state, Weights):
        return replace(state, integers=np.clip(state.integers, low, high).astype(state.integers.dtype))
    x = reader.quantized(node)
    kind = clamp_to((int(max(low, INT8_MIN)), int(min(high, INT8_MAX))))
    output = replace(x.tensor, name=node.output[0])
    return replace(reader.emit(kind, (x.tensor.name,), output, name_of(node)), flat=x.flat)


def leaky_relu(reader: Reader, node: onnx.NodeProto) -> Open:
    """A table."""
    slope = np.float32(attributes_of(node).get("alpha", 0.01))
    return unary(reader, node, lambda x: np.where(x >= 0, x, slope * x))


def sigmoid(reader: Reader, node: onnx.NodeProto) -> Open:
    """A table."""
    return unary(reader, node, lambda x: (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32))


def unary(reader: Reader, node: onnx.NodeProto, function: Function) -> Open:
    """A function of one int8 tensor."""
    x = reader.tensor(node)

    def make(scale: float, clip: Pair) -> Table:
        return Table(np.clip(table(function(reals(x.scale)), scale), *clip).astype(np.int8))

    return Open(make, (x.name,), x.shape, name_of(node), clips=True)


def max_pool(reader: Reader, node: onnx.NodeProto) -> Quantized:
    """On the same scale."""
    x = reader.tensor(node)
    kernel, stride, pads = window_of(reader, node, x)
    output = Tensor(node.output[0], pooled(reader, node, x, kernel, stride, pads), x.scale)
    return reader.emit(MaxPool(kernel, stride, pads), (x.name,), output, name_of(node))


def average_pool(reader: Reader, node: onnx.NodeProto) -> Open:
    """The mean over a window, or over the whole map."""
    x = reader.tensor(node)
    if node.op_type == "ReduceMean":
        axes = attributes_of(node).get("axes", reader.constant(node, 1))
        rank = len(reader.model.shapes[node.input[0]])
        if rank != 4 or axes is None or {int(axis) % rank for axis in axes} != {2, 3}:
            raise reader.model.error(node, "only the mean over rows and columns has an integer form")
    kernel, stride, pads = window_of(reader, node, x)
    if any(pads) and not attributes_of(node).get("count_include_pad", 0):
        raise reader.model.error(node, "at the edges its mean is over fewer values; use count_include_pad = 1")
    count = kernel[0] * kernel[1]

    def make(scale: float, clip: Pair) -> MeanPool:
        exact = ratio(x.scale, over=scale)
        if is_power_of_two(exact) and 2.0**-EXACT_SHIFT <= exact <= 2**EXACT_SHIFT:
            return MeanPool(kernel, stride, pads, exact.numerator, exact.denominator * count)
        found = multiplier(exact / count)
        return MeanPool(kernel, stride, pads, m=found.m, n=found.n)

    flat = len(reader.model.shapes[node.output[0]]) == 2
    return Open(make, (x.name,), pooled(reader, node, x, kernel, stride, pads), name_of(node), flat=flat)


def pooled(reader: Reader, node: onnx.NodeProto, x: Tensor, kernel: Pair, stride: Pair, pads: Pads) -> Shape:
    """Shape NHWC of what a window makes."""
    return reader.agreed(node, (x.shape[0], *swept(x.shape[1:3], kernel, stride, pads), x.shape[3]))


def is_power_of_two(value: Fraction) -> bool:
    """Of a positive fraction."""
    return value.numerator & (value.numerator - 1) == 0 and value.denominator & (value.denominator - 1) == 0


def window_of(reader: Reader, node: onnx.NodeProto, x: Tensor) -> tuple[Pair, Pair, Pads]:
    """Kernel, stride and pads of a pooling."""
    if node.op_type in WHOLE_MAP:
        return pair(x.shape[1:3]), (1, 1), (0, 0, 0, 0)
    values = attributes_of(node)
    if any(size != 1 for size in values.get("dilations", (1, 1))):
        raise reader.model.error(node, "a dilated pooling has no form here")
    if values.get("ceil_mode", 0):
        raise reader.model.error(node, "ceil_mode has no form here; export it with explicit pads")
    return pair(values["kernel_shape"]), pair(values.get("strides", (1, 1))), pads_of(reader, node)


def resize(reader: Reader, node: onnx.NodeProto) -> State:
    """Nearest and bilinear upsampling by 2."""
    x, shape, values = reader.tensor(node), reader.shape(node.output[0]), attributes_of(node)
    mode = values.get("mode", "nearest")
    transformation = values.get("coordinate_transformation_mode", "half_pixel")
    nearest = values.get("nearest_mode", "round_prefer_floor")
    doubled = shape == (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3])
    scales = reader.constant(node, 2)
    if scales is not None and scales.size:  # sizes instead leave no doubt
        axes = [int(axis) % 4 for axis in values.get("axes", range(4))]
        factors = dict(zip(axes, scales.tolist(), strict=True))
        doubled = doubled and {axis: factor for axis, factor in factors.items() if factor != 1} == {2: 2, 3: 2}
    if doubled and mode == "nearest" and (transformation, nearest) in COPIES:
        return reader.emit(Nearest2x(), (x.name,), Tensor(node.output[0], shape, x.scale), name_of(node))
    if not (doubled and mode == "linear" and transformation in HALF_PIXEL):
        raise reader.model.error(
            node,
            f"only upsampling by 2, nearest or bilinear with half-pixel centres, has a form, not mode {mode}, "
            f"coordinates {transformation}, nearest_mode {nearest}, from {x.shape[1:3]} to {shape[1:3]}",
        )

    def make(scale: float, clip: Pair) -> Bilinear2x:
        found = multiplier(ratio(x.scale, over=scale) / BILINEAR)
        return Bilinear2x(found.m, found.n)

    return Open(make, (x.name,), shape, name_of(node))


def cut_out(reader: Reader, node: onnx.NodeProto) -> Quantized:
    """Slice, with steps of 1."""
    x = rank_4(reader, node)
    starts, ends = reader.constant(node, 1), reader.constant(node, 2)
    axes, steps = reader.constant(node, 3), reader.constant(node, 4)
    assert starts is not None
    assert ends is not None
    if steps is not None and (steps != 1).any():
        raise reader.model.error(node, "only steps of 1 have a form here")
    begin, end = [0, 0, 0, 0], list(x.shape)
    for axis, first, last in zip(range(len(starts)) if axes is None else axes, starts, ends, strict=True):
        place = (0, 3, 1, 2)[int(axis)]  # NCHW to NHWC
        size = x.shape[place]
        begin[place], end[place] = (int(np.clip(at + size if at < 0 else at, 0, size)) for at in (first, last))
    sizes = tuple(last - first for first, last in zip(begin, end, strict=True))
    output = Tensor(node.output[0], sizes, x.scale)  # type: ignore[arg-type]
    return reader.emit(Slice(tuple(begin), tuple(end)), (x.name,), output, name_of(node))  # type: ignore[arg-type]


def pad(reader: Reader, node: onnx.NodeProto) -> State:
    """With zeros, on the same scale; with another number, which may be none of the input's, on that of its output."""
    x, mode = rank_4(reader, node), attributes_of(node).get("mode", "constant")
    amounts, value, axes = (reader.constant(node, place) for place in (1, 2, 3))
    assert amounts is not None
    if axes is not None and axes.tolist() != [0, 1, 2, 3]:
        raise reader.model.error(node, "padding of some axes only has no form here; give pads for all four")
    if mode != "constant" or (amounts < 0).any():
        raise reader.model.error(
            node, f"only padding with one number has a form here, not {mode} by {amounts.tolist()}"
        )
    number = 0.0 if value is None else float(value.item())
    before, after = nhwc(amounts[:4]), nhwc(amounts[4:])
    batch, height, width, channels = (sum(sizes) for sizes in zip(before, x.shape, after, strict=True))
    shape = reader.agreed(node, (batch, height, width, channels))
    if number == 0:
        kind = Pad(before, after, 0, SAME.m, SAME.n)
        return reader.emit(kind, (x.name,), Tensor(node.output[0], shape, x.scale), name_of(node))

    def make(scale: float, clip: Pair) -> Pad:
        found = multiplier(ratio(x.scale, over=scale))
        return Pad(before, after, on_grid(number, scale), found.m, found.n)

    return Open(make, (x.name,), shape, name_of(node))


def nhwc(values: NDArray[np.int64]) -> Shape:
    """Four integers in the order NCHW."""
    batch, channels, height, width = (int(value) for value in values)
    return batch, height, width, channels


def rank_4(reader: Reader, node: onnx.NodeProto) -> Tensor:
    """The input, which must be a map."""
    if len(reader.model.shapes[node.input[0]]) != 4:
        raise reader.model.error(node, "only a map (1, C, H, W) has a form here, not a vector")
    return reader.tensor(node)


def flatten(reader: Reader, node: onnx.NodeProto) -> State:
    """To a vector (1, C · H · W)."""
    state, shape = reader.state(node, 0), reader.model.shapes[node.output[0]]
    if len(shape) != 2 or shape[0] != 1 or not isinstance(state, Quantized | Open):
        raise reader.model.error(node, f"only a map that becomes a vector (1, K) has a form here, not {shape}")
    return replace(state, flat=True)


def transpose(reader: Reader, node: onnx.NodeProto) -> State:
    """Of the model's own numbers, as exporters write the weights of a linear layer."""
    state = reader.state(node, 0)
    if isinstance(state, Floats):
        return Floats(state.values.transpose(attributes_of(node).get("perm")))
    if not isinstance(state, Weights):
        raise reader.model.error(node, "only weights can be transposed, not what is computed")
    order = list(attributes_of(node).get("perm", reversed(range(state.integers.ndim))))
    axis = order.index(state.axis % len(order)) if state.scale.size > 1 else state.axis
    return Weights(state.integers.transpose(order), state.scale, axis)


def argmax(reader: Reader, node: onnx.NodeProto) -> Largest:
    """Over the channels, the lowest index on a tie."""
    x, values = reader.tensor(node), attributes_of(node)
    rank = len(reader.model.shapes[node.input[0]])
    if values.get("axis", 0) % rank != 1 or values.get("select_last_index", 0):
        raise reader.model.error(node, "only the first largest channel has a form here")
    return Largest(x)


VISITORS: dict[str, Visitor] = {
    "Conv": convolution,
    "Gemm": linear,
    "MatMul": linear,
    "Mul": times_constant,
    "Add": add,
    "Concat": concat,
    "Relu": cut,
    "Clip": cut,
    "LeakyRelu": leaky_relu,
    "Sigmoid": sigmoid,
    "MaxPool": max_pool,
    "GlobalMaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": average_pool,
    "ReduceMean": average_pool,
    "Resize": resize,
    "Slice": cut_out,
    "Pad": pad,
    "Flatten": flatten,
    "Reshape": flatten,
    "Transpose": transpose,
    "ArgMax": argmax,
}
