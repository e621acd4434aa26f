"""A foreign network in Relax: every layer spelt out in integer operators, which TVM compiles as they are.

main(x float32 NCHW) -> tuple of outputs        between the two: int8 NHWC, sums int32, products with m int64
"""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
import tvm
from numpy.typing import ArrayLike, NDArray
from tvm import relax
from tvm.relax import op

from compile.foreign.network import (
    Bilinear2x,
    Concat,
    Constant,
    Convolution,
    Kind,
    MaxPool,
    MeanPool,
    Nearest2x,
    Network,
    Output,
    Pad,
    Pads,
    Pair,
    Slice,
    Sum,
    Table,
)
from quant.arith import INT8_MAX, INT8_MIN

NHWC = {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_dtype": "int32"}


def to_relax(network: Network) -> tvm.IRModule:
    """The module of a network."""
    builder = relax.BlockBuilder()
    picture = relax.Var(network.input_name, relax.TensorType(network.input_shape, "float32"))
    with builder.function("main", [picture]):
        with builder.dataflow():
            tensors = {network.input.name: builder.emit(quantized(picture, network.input.scale))}
            for layer in network.layers:
                inputs = [tensors[name] for name in layer.inputs]
                tensors[layer.output.name] = builder.emit(builder.normalize(compute(layer.kind, *inputs)))
            scales = {name: entry.scale for name, entry in network.tensors.items()}
            outputs = [finished(entry, tensors[entry.tensor], scales[entry.tensor]) for entry in network.outputs]
            result = builder.emit_output(relax.Tuple([builder.emit(value) for value in outputs]))
        builder.emit_func_output(result)
    return builder.get()


def quantized(picture: relax.Var, scale: float) -> relax.Expr:
    """float32 NCHW -> int8 NHWC; TVM's round goes half to even."""
    rounded = op.round(op.divide(picture, relax.const(np.float32(scale))))
    return op.permute_dims(op.astype(op.clip(rounded, INT8_MIN, INT8_MAX), "int8"), [0, 2, 3, 1])


def finished(output: Output, value: relax.Expr, scale: float) -> relax.Expr:
    """int8 NHWC -> what the ONNX returns."""
    nchw = op.permute_dims(value, [0, 3, 1, 2])
    if output.argmax:
        # TVM's argmax starts from the type's least value, which a map of -128s would never exceed
        return op.reshape(op.argmax(op.astype(nchw, "int32"), axis=1), output.shape)
    return op.reshape(op.multiply(op.astype(nchw, "float32"), relax.const(np.float32(scale))), output.shape)


@singledispatch
def compute(kind: Kind, *inputs: relax.Expr) -> relax.Expr:
    """A layer's output."""
    raise NotImplementedError(type(kind).__name__)


@compute.register
def _(kind: Convolution, x: relax.Expr) -> relax.Expr:
    layout: dict[str, Any] = {"padding": kind.pads, "dilation": kind.dilation, "groups": kind.groups, **NHWC}
    total = op.nn.conv2d(x, constant(kind.weight), strides=kind.stride, **layout)
    return scaled(op.add(total, constant(kind.bias.astype(np.int32))), kind.m, kind.n, kind.clip)


@compute.register
def _(kind: Table, x: relax.Expr) -> relax.Expr:
    index = op.subtract(op.astype(x, "int32"), relax.const(INT8_MIN, "int32"))
    return op.take(constant(kind.values), index, axis=0, mode="clip")


@compute.register
def _(kind: Sum, *inputs: relax.Expr) -> relax.Expr:
    parts = [op.multiply(op.astype(x, "int64"), long(m)) for x, m in zip(inputs, kind.m, strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = op.add(total, part)
    return narrow(shifted(total, kind.n), kind.clip)


@compute.register
def _(kind: Concat, *inputs: relax.Expr) -> relax.Expr:
    return op.concat([rescaled(x, m, n) for x, m, n in zip(inputs, kind.m, kind.n, strict=True)], axis=3)


@compute.register
def _(kind: MaxPool, x: relax.Expr) -> relax.Expr:
    return op.nn.max_pool2d(x, kind.kernel, kind.stride, kind.pads, layout="NHWC")


@compute.register
def _(kind: MeanPool, x: relax.Expr) -> relax.Expr:
    total = window_sum(x, kind.kernel, kind.stride, kind.pads)
    if not kind.denominator:
        return scaled(total, kind.m, kind.n)
    value = op.multiply(op.astype(total, "int64"), long(kind.numerator))
    whole = long(kind.denominator)
    quotient = op.floor_divide(value, whole)
    twice = op.multiply(op.subtract(value, op.multiply(quotient, whole)), long(2))
    odd = op.bitwise_and(quotient, long(1))
    up = op.add(
        op.astype(op.greater(twice, whole), "int64"), op.multiply(op.astype(op.equal(twice, whole), "int64"), odd)
    )
    return narrow(op.add(quotient, up))


def window_sum(x: relax.Expr, kernel: Pair, stride: Pair, pads: Pads) -> relax.Expr:
    """int32 sums over a window: a convolution of ones with a group to each channel."""
    channels = int(x.ty.shape[3])
    ones = constant(np.ones((channels, *kernel, 1), np.int8))
    return op.nn.conv2d(x, ones, strides=stride, padding=pads, groups=channels, **NHWC)


@compute.register
def _(kind: Nearest2x, x: relax.Expr) -> relax.Expr:
    return op.repeat(op.repeat(x, 2, axis=1), 2, axis=2)


@compute.register
def _(kind: Bilinear2x, x: relax.Expr) -> relax.Expr:
    batch, height, width, channels = (int(size) for size in x.ty.shape)
    rows = doubled(op.astype(x, "int32"), 1, (batch, height, width, channels))
    return scaled(doubled(rows, 2, (batch, 2 * height, width, channels)), kind.m, kind.n)


def doubled(x: relax.Expr, axis: int, shape: Sequence[int]) -> relax.Expr:
    """Twice as long, in quarters: 3 parts of the near pixel, 1 of the one beyond it."""
    count = shape[axis]
    before, after = np.maximum(np.arange(count) - 1, 0), np.minimum(np.arange(count) + 1, count - 1)
    near = op.multiply(x, relax.const(3, "int32"))
    pairs = [
        op.add(near, op.take(x, constant(index.astype(np.int32)), axis=axis, mode="clip")) for index in (before, after)
    ]
    interleaved = op.concat([op.expand_dims(entry, axis + 1) for entry in pairs], axis=axis + 1)
    return op.reshape(interleaved, [2 * size if place == axis else size for place, size in enumerate(shape)])


@compute.register
def _(kind: Slice, x: relax.Expr) -> relax.Expr:
    return op.strided_slice(x, axes=[0, 1, 2, 3], begin=list(kind.begin), end=list(kind.end))


@compute.register
def _(kind: Pad, x: relax.Expr) -> relax.Expr:
    widths = [size for sides in zip(kind.before, kind.after, strict=True) for size in sides]
    return op.nn.pad(rescaled(x, kind.m, kind.n), widths, pad_value=kind.value)


@compute.register
def _(kind: Constant) -> relax.Expr:
    return constant(kind.value)


def constant(value: NDArray[Any]) -> relax.Expr:
    """Of the array's own type."""
    return relax.const(value, str(value.dtype))


def long(value: int) -> relax.Expr:
    """An int64."""
    return relax.const(np.array(value, np.int64), "int64")


def rescaled(x: relax.Expr, m: int, n: int) -> relax.Expr:
    """int8 to int8, as `scaled`; nothing is computed where the scale stays."""
    return x if m == 1 << n else scaled(x, m, n)


def scaled(total: relax.Expr, m: ArrayLike, n: ArrayLike, clip: Pair = (INT8_MIN, INT8_MAX)) -> relax.Expr:
    """clip(total · m / 2^n), half to even; m and n one, or one for each channel."""
    product = op.multiply(op.astype(total, "int64"), constant(np.asarray(m, np.int64)))
    return narrow(shifted(product, n), clip)


def shifted(value: relax.Expr, shift: ArrayLike) -> relax.Expr:
    """int64 / 2^shift, half to even, 1 <= shift <= 62."""
    n = np.asarray(shift, np.int64)
    odd = op.bitwise_and(op.right_shift(value, constant(n)), long(1))
    below_half = constant((np.int64(1) << (n - 1)) - 1)
    return op.right_shift(op.add(op.add(value, below_half), odd), constant(n))


def narrow(value: relax.Expr, clip: Pair = (INT8_MIN, INT8_MAX)) -> relax.Expr:
    """To int8, clipped."""
    low, high = clip
    return op.astype(op.minimum(op.maximum(value, long(low)), long(high)), "int8")
