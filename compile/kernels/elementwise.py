"""Kernels of the layers that are no convolutions: one TensorIR function each, int8 NHWC in and out."""

from collections.abc import Sequence

from tvm import te, tirx

from compile.kernels.epilogue import requantized
from compile.layers import (
    AddLayer,
    AveragePool,
    ChannelArgmax,
    ConcatLayer,
    FlattenMaps,
    Layer,
    QuantizePixels,
    Shape,
    Upsample2x,
)
from quant.arith import PAD_PIXEL


def quantize_pixels_kernel(layer: QuantizePixels, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    picture = te.placeholder(shapes[0], "uint8", "picture")
    out = te.compute(shapes[0], lambda *index: (picture(*index).astype("int32") - PAD_PIXEL).astype("int8"), name="out")
    return te.create_prim_func([picture, out])


def add_kernel(layer: AddLayer, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    a, b = te.placeholder(shapes[0], "int8", "a"), te.placeholder(shapes[1], "int8", "b")
    grid = max(layer.a_shift, layer.b_shift)

    def value(*index: tirx.Expr) -> tirx.Expr:
        total = a(*index).astype("int32") * (1 << (grid - layer.a_shift))
        total = total + b(*index).astype("int32") * (1 << (grid - layer.b_shift))
        return requantized(tirx.max(total, 0) if layer.relu else total, grid - layer.out_shift)

    out = te.compute(shapes[0], value, name="out")
    return te.create_prim_func([a, b, out])


def upsample_kernel(layer: Upsample2x, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    x = te.placeholder(shapes[0], "int8", "x")
    out_shape = (1, layer.height, layer.width, shapes[0][3])
    out = te.compute(out_shape, lambda n, y, z, channel: x[n, y // 2, z // 2, channel], name="out")
    return te.create_prim_func([x, out])


def concat_kernel(layer: ConcatLayer, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    inputs = [te.placeholder(shape, "int8", f"x{index}") for index, shape in enumerate(shapes)]
    offsets = [sum(shape[3] for shape in shapes[:index]) for index in range(len(shapes))]

    def value(n: tirx.Expr, y: tirx.Expr, z: tirx.Expr, channel: tirx.Expr) -> tirx.Expr:
        selected: tirx.Expr | None = None
        for x, offset, shift in reversed(list(zip(inputs, offsets, layer.in_shifts, strict=True))):
            local = tirx.max(channel - offset, 0)
            part = requantized(x[n, y, z, local].astype("int32"), shift - layer.out_shift)
            selected = part if selected is None else tirx.if_then_else(channel < offset + x.shape[3], part, selected)
        return selected

    out = te.compute((*shapes[0][:3], sum(shape[3] for shape in shapes)), value, name="out")
    return te.create_prim_func([*inputs, out])


def average_pool_kernel(layer: AveragePool, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    batch, height, width, channels = shapes[0]
    x = te.placeholder(shapes[0], "int8", "x")
    size = [(extent - layer.kernel) // layer.stride + 1 for extent in (height, width)]
    rows, columns = te.reduce_axis((0, layer.kernel), "rows"), te.reduce_axis((0, layer.kernel), "columns")
    total = te.compute(
        (batch, *size, channels),
        lambda n, y, z, channel: te.sum(
            x[n, y * layer.stride + rows, z * layer.stride + columns, channel].astype("int32"), axis=[rows, columns]
        ),
        name="total",
    )
    distance = layer.sum_shift - layer.out_shift
    out = te.compute(total.shape, lambda *index: requantized(total(*index), distance), name="out")
    return te.create_prim_func([x, out])


def channel_argmax_kernel(layer: ChannelArgmax, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    """Maximizes value * 256 + (255 - index): unique per channel, so a tie goes to the lowest index."""
    logits = te.placeholder(shapes[0], "int8", "logits")
    channel = te.reduce_axis((0, shapes[0][3]), "channel")
    best = te.compute(
        shapes[0][:3],
        lambda n, y, z: te.max(logits[n, y, z, channel].astype("int32") * 256 + (255 - channel), axis=channel),
        name="best",
    )
    out = te.compute(shapes[0][:3], lambda *index: (255 - (best(*index) & 255)).astype("uint8"), name="out")
    return te.create_prim_func([logits, out])


def flatten_maps_kernel(layer: FlattenMaps, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    maps = [te.placeholder(shape, "int8", f"map{index}") for index, shape in enumerate(shapes)]
    counts = [shape[1] * shape[2] * shape[3] // layer.fields for shape in shapes]

    def value(row: tirx.Expr, field: tirx.Expr) -> tirx.Expr:
        selected: tirx.Expr | None = None
        for index in reversed(range(len(maps))):
            width, channels = shapes[index][2:]
            flat = tirx.max(row - sum(counts[:index]), 0) * layer.fields + field
            cell = flat // channels
            part = maps[index][0, cell // width, cell % width, flat % channels]
            last = selected is None
            selected = part if last else tirx.if_then_else(row < sum(counts[: index + 1]), part, selected)
        return selected

    out = te.compute((sum(counts), layer.fields), value, name="out")
    return te.create_prim_func([*maps, out])


_KERNELS = {
    QuantizePixels: quantize_pixels_kernel,
    AddLayer: add_kernel,
    Upsample2x: upsample_kernel,
    ConcatLayer: concat_kernel,
    AveragePool: average_pool_kernel,
    ChannelArgmax: channel_argmax_kernel,
    FlattenMaps: flatten_maps_kernel,
}


def elementwise_kernel(layer: Layer, shapes: Sequence[Shape]) -> tirx.PrimFunc:
    """The kernel of a layer without weights, for inputs of these shapes."""
    return _KERNELS[type(layer)](layer, shapes)  # type: ignore[operator]
