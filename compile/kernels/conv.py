"""One generator for all convolutions: one loop nest of plain int32 arithmetic, from the products to saturation.

    for each row, each tile of TILE pixels:
        for each block of BLOCK output channels:  accumulators[TILE][BLOCK] += input (broadcast) * weights (a vector)
        for each pixel, each channel:             the epilogue, integer_ops' formulas on one value

Weights come packed so that a block is contiguous: (groups * blocks, K, K, channels in per group, BLOCK), zeros where a
group's channels do not fill its last block. The input is copied once into a scratch with its border of zeros, so that
the inner loops test no bounds.
"""

from dataclasses import dataclass

import numpy as np
from tvm import te, tirx
from tvm.s_tir import Schedule

from compile.kernels.epilogue import requantized
from compile.layers import ConvLayer

BLOCK = 16  # output channels computed together
TILE = 6  # pixels computed together: about TILE * BLOCK / 8 vector registers hold the accumulators on 256 bits


@dataclass(frozen=True)
class ConvShape:
    """The sizes that a kernel depends on besides the layer's settings."""

    height: int
    width: int
    channels_in: int
    channels_out: int
    kernel: int


def pack_weight(weight: np.ndarray, groups: int) -> np.ndarray:
    """int8 OHWI -> int8 (groups * blocks, K, K, I, BLOCK), padded with channels of zeros."""
    channels_out, kernel, _, channels_in = weight.shape
    per_group = channels_out // groups
    blocks = -(-per_group // BLOCK)
    padded = np.zeros((groups, blocks * BLOCK, kernel, kernel, channels_in), np.int8)
    padded[:, :per_group] = weight.reshape(groups, per_group, kernel, kernel, channels_in)
    packed = padded.reshape(groups * blocks, BLOCK, kernel, kernel, channels_in)
    return np.ascontiguousarray(packed.transpose(0, 2, 3, 4, 1))


def conv_kernel(layer: ConvLayer, shape: ConvShape) -> tirx.PrimFunc:
    """PrimFunc (x, packed weight, bias, weight_shift[, residual], out).

    Activations are int8 NHWC, bias and weight_shift int32 (O,).
    """
    padding, stride, kernel = layer.padding, layer.stride, shape.kernel
    out_height = (shape.height + 2 * padding - kernel) // stride + 1
    out_width = (shape.width + 2 * padding - kernel) // stride + 1
    in_per_group, out_per_group = shape.channels_in // layer.groups, shape.channels_out // layer.groups
    blocks = -(-out_per_group // BLOCK)

    x = te.placeholder((1, shape.height, shape.width, shape.channels_in), "int8", "x")
    weight = te.placeholder((layer.groups * blocks, kernel, kernel, in_per_group, BLOCK), "int8", "weight")
    bias = te.placeholder((shape.channels_out,), "int32", "bias")
    weight_shift = te.placeholder((shape.channels_out,), "int32", "weight_shift")
    out_shape = (1, out_height, out_width, shape.channels_out)
    residual = te.placeholder(out_shape, "int8", "residual")

    def padded_value(row: tirx.Expr, column: tirx.Expr, channel: tirx.Expr) -> tirx.Expr:
        y, z = row - padding, column - padding
        inside = tirx.all(y >= 0, y < shape.height, z >= 0, z < shape.width)
        return tirx.if_then_else(inside, x[0, y, z, channel], tirx.const(0, "int8"))

    padded = te.compute(
        (shape.height + 2 * padding, shape.width + 2 * padding, shape.channels_in), padded_value, name="padded"
    )
    rows, columns = te.reduce_axis((0, kernel), "rows"), te.reduce_axis((0, kernel), "columns")
    channel_in = te.reduce_axis((0, in_per_group), "channel_in")

    def product(y: tirx.Expr, z: tirx.Expr, block: tirx.Expr, lane: tirx.Expr) -> tirx.Expr:
        value = padded[y * stride + rows, z * stride + columns, (block // blocks) * in_per_group + channel_in]
        factor = weight[block, rows, columns, channel_in, lane]
        return te.sum(value.astype("int32") * factor.astype("int32"), axis=[rows, columns, channel_in])

    accumulator = te.compute((out_height, out_width, layer.groups * blocks, BLOCK), product, name="accumulator")

    def epilogue(_: tirx.Expr, y: tirx.Expr, z: tirx.Expr, channel: tirx.Expr) -> tirx.Expr:
        group, member = channel // out_per_group, channel % out_per_group
        value = accumulator[y, z, group * blocks + member // BLOCK, member % BLOCK] + bias[channel]
        grid = weight_shift[channel] + layer.in_shift
        if layer.residual_shift is not None:
            conv_grid = grid
            grid = tirx.max(conv_grid, layer.residual_shift)
            value = (value << (grid - conv_grid)) + (
                residual[0, y, z, channel].astype("int32") << (grid - layer.residual_shift)
            )
        if layer.relu:
            value = tirx.max(value, 0)
        return requantized(value, grid - layer.out_shift)

    out = te.compute(out_shape, epilogue, name="out")
    inputs = [x, weight, bias, weight_shift, *([residual] if layer.residual_shift is not None else [])]
    return schedule(te.create_prim_func([*inputs, out]), out_width)


def schedule(function: tirx.PrimFunc, out_width: int) -> tirx.PrimFunc:
    """The loop order of the module's text."""
    plan = Schedule(function)
    out, accumulator = plan.get_sblock("out"), plan.get_sblock("accumulator")
    z = plan.get_loops(out)[2]
    tile = max(size for size in range(1, TILE + 1) if out_width % size == 0)
    outer, _ = plan.split(z, [None, tile])
    plan.compute_at(accumulator, outer, preserve_unit_loops=True)
    pixel, block, lane, rows, columns, channel_in = plan.get_loops(accumulator)[-6:]
    plan.reorder(block, rows, columns, channel_in, pixel, lane)
    registers = plan.cache_write(accumulator, 0, "local")
    plan.reverse_compute_at(registers, block, preserve_unit_loops=True)
    plan.vectorize(plan.get_loops(registers)[-1])
    plan.unroll(pixel)
    plan.vectorize(lane)
    plan.decompose_reduction(accumulator, rows)
    return plan.mod["main"]
