"""Kernels of the layers that are no convolutions. All read and write feature maps in any storage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from math import prod
from types import NoneType

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.builder import Index, build_kernel, flat, rows
from compile.kernels.epilogue import NarrowEpilogue, Register, WideEpilogue
from compile.kernels.instructions import Instructions
from compile.kernels.memory import WIDEST, Layout, largest_power, load, powers, run_of, store, write_border
from compile.kernels.requantize import Requantize, all_lanes, multiply_add
from compile.layers import (
    AddLayer,
    AveragePool,
    ConcatLayer,
    Layer,
    QuantizePixels,
    Shape,
    Upsample2x,
)
from quant.arith import INT8_MIN

# out = value(where a register lies in each source, how many of its lanes are valid)
Value = Callable[[Sequence[Index], int], tirx.Expr]
PARTS = 8  # of a map that is copied, for up to as many threads
COPIED_IN_A_CYCLE = 16  # bytes


@dataclass(frozen=True)
class LayerKernel:
    """A layer without weights, with the feature maps that it reads and writes."""

    layer: Layer | None
    sources: tuple[Layout, ...]
    target: Layout

    @property
    def cycles(self) -> int:
        """About as many as this takes: most of them those that it waits for memory."""
        return prod(self.target.shape) // 4

    def build(self, cpu: Instructions) -> tirx.PrimFunc:
        """PrimFunc (inputs in the layer's order, out)."""
        inputs = [source.parameter(f"x{index}") for index, source in enumerate(self.sources)]

        def body(*buffers: tirx.Buffer) -> None:
            *read, out = (flat(buffer) for buffer in buffers)
            write(self, read, out, cpu.lanes)
            write_border(out, self.target)

        write = _WRITERS[type(self.layer)]
        return build_kernel(inputs, [self.target.parameter("out")], body)


def write_copy(kernel: LayerKernel, inputs: Sequence[tirx.Buffer], out: tirx.Buffer, lanes: int) -> None:
    """The same values in another storage, or upsampled."""
    (x,), (source,) = inputs, kernel.sources
    lanes = copied_at_once(source, kernel.target, lanes)

    def value(start: Sequence[Index], valid: int) -> tirx.Expr:
        return moved(load(x, start[0], valid, lanes), source, kernel.target, lanes)

    everywhere(kernel, out, lanes, value)


def copied_at_once(source: Layout, target: Layout, lanes: int) -> int:
    """Bytes that go through a register: all of it where the stored bytes are the same, else one to an int32."""
    return 4 * lanes if same_bytes(source, target) else lanes


def same_bytes(source: Layout, target: Layout) -> bool:
    """Whether equal values are equal bytes in both."""
    return (source.storage.offset, source.storage.dtype) == (target.storage.offset, target.storage.dtype)


def moved(value: tirx.Expr, source: Layout, target: Layout, lanes: int) -> tirx.Expr:
    """Stored bytes of one feature map as those of another."""
    if same_bytes(source, target):
        return value
    difference = target.storage.offset - source.storage.offset
    wide = T.Cast(f"int32x{lanes}", value) + all_lanes(difference, lanes)
    return T.Cast(f"{target.storage.dtype}x{lanes}", wide)


def real(value: tirx.Expr, source: Layout, scale: float, lanes: int) -> tirx.Expr:
    """Stored bytes as float32: values times a power of two."""
    zero = all_lanes(float(-source.storage.offset * scale), lanes)
    return multiply_add(T.Cast(f"float32x{lanes}", value), all_lanes(float(scale), lanes), zero, lanes)


def everywhere(kernel: LayerKernel, out: tirx.Buffer, lanes: int, value: Value) -> None:
    """Writes the whole map: row by row where the sources are as large as it, else pixel by pixel, upsampling them."""
    if all(source.shape == kernel.target.shape for source in kernel.sources):
        each_register(kernel, out, lanes, value)
    else:
        each_pixel(kernel, out, lanes, value)


def each_register(kernel: LayerKernel, out: tirx.Buffer, lanes: int, value: Value) -> None:
    """All bytes of a row in one run, in which the last register overlaps the one before it."""
    target, row_bytes = kernel.target, kernel.target.width * kernel.target.channels
    valid = min(lanes, row_bytes)
    with rows(target.height, kernel.cycles) as y, T.serial(-(-row_bytes // lanes)) as number:
        byte = T.min(number * lanes, row_bytes - valid)
        starts = [source.address(y, 0) + byte for source in kernel.sources]
        store(out, target.address(y, 0) + byte, value(starts, valid), valid, lanes)


def each_pixel(kernel: LayerKernel, out: tirx.Buffer, lanes: int, value: Value) -> None:
    """The channels of a pixel in one run; a source that is smaller than the target gives each pixel twice."""
    target = kernel.target
    with rows(target.height, kernel.cycles) as y, T.serial(target.width) as z:
        for channel, valid in registers(target.channels, lanes):
            starts = [
                source.address(*((y, z) if source.shape == target.shape else (y // 2, z // 2)), channel)
                for source in kernel.sources
            ]
            store(out, target.address(y, z, channel), value(starts, valid), valid, lanes)


def write_add(kernel: LayerKernel, inputs: Sequence[tirx.Buffer], out: tirx.Buffer, lanes: int) -> None:
    """The second operand is to the first one what a residual is to the sums of a convolution. It may be upsampled."""
    layer = kernel.layer
    assert isinstance(layer, AddLayer)
    a, b = (source.storage for source in kernel.sources)
    grid = max(layer.a_shift, layer.b_shift)
    a_left, distances = grid - layer.a_shift, np.array([grid - layer.out_shift])
    largest = np.array([(-INT8_MIN << a_left) + (-INT8_MIN << grid - layer.b_shift)])
    residual_distance = layer.b_shift - layer.out_shift
    narrow = NarrowEpilogue.fits(largest, distances, residual_distance)
    requantize = Requantize(kernel.target.storage, layer.relu)
    epilogue = (NarrowEpilogue if narrow else WideEpilogue)(requantize, b, residual_distance)
    first = int(epilogue.first_sums(distances)[0]) - (a.offset << a_left)
    constants = [all_lanes(value.item(), lanes) for (value,) in epilogue.channel_constants(distances)]

    def value(starts: Sequence[Index], valid: int) -> tirx.Expr:
        registers = []
        for x, added in zip(
            *(halves(x, start, valid, lanes) for x, start in zip(inputs, starts, strict=True)), strict=True
        ):
            sums = all_lanes(first, lanes) + (T.Cast(f"int32x{lanes}", x) << all_lanes(a_left, lanes))
            registers.append(Register(sums, constants, added))
        return tirx.Shuffle(epilogue(registers, lanes), list(range(2 * lanes)))

    everywhere(kernel, out, 2 * lanes, value)


def halves(memory: tirx.Buffer, start: Index, valid: int, lanes: int) -> list[tirx.Expr]:
    """Two registers' bytes, of which the first `valid` come from memory."""
    if valid == 2 * lanes:
        return [load(memory, start + half * lanes, lanes, lanes) for half in range(2)]
    both = T.Bind(load(memory, start, valid, 2 * lanes))
    return [tirx.Shuffle([both], list(range(half * lanes, (half + 1) * lanes))) for half in range(2)]


def write_concat(kernel: LayerKernel, inputs: Sequence[tirx.Buffer], out: tirx.Buffer, lanes: int) -> None:
    layer, target = kernel.layer, kernel.target
    assert isinstance(layer, ConcatLayer)
    with rows(target.height, kernel.cycles) as y, T.serial(target.width) as z:
        first = 0
        for x, source, shift in zip(inputs, kernel.sources, layer.in_shifts, strict=True):
            scale = 2.0 ** (layer.out_shift - shift)
            requantize = Requantize(target.storage, relu=False)
            for channel, valid in registers(source.channels, lanes):
                value = real(load(x, source.address(y, z, channel), valid, lanes), source, scale, lanes)
                store(out, target.address(y, z, first + channel), requantize.rounded(value, lanes), valid, lanes)
            first += source.channels


def write_average(kernel: LayerKernel, inputs: Sequence[tirx.Buffer], out: tirx.Buffer, lanes: int) -> None:
    (x,), (source,), target, layer = inputs, kernel.sources, kernel.target, kernel.layer
    assert isinstance(layer, AveragePool)
    scale = 2.0 ** (layer.out_shift - layer.sum_shift)
    requantize = Requantize(target.storage, relu=False)
    with rows(target.height, kernel.cycles) as y, T.serial(target.width) as z:
        for channel, valid in registers(target.channels, lanes):
            total = all_lanes(0, lanes)
            for row in range(layer.kernel):
                for column in range(layer.kernel):
                    place = y * layer.stride + row, z * layer.stride + column, channel
                    total = total + T.Cast(f"int32x{lanes}", load(x, source.address(*place), valid, lanes))
            total = total - all_lanes(source.storage.offset * layer.kernel**2, lanes)
            value = T.Cast(f"float32x{lanes}", total) * all_lanes(scale, lanes)
            store(out, target.address(y, z, channel), requantize.rounded(value, lanes), valid, lanes)


def registers(channels: int, lanes: int) -> list[tuple[int, int]]:
    """First channel and number of channels of the registers that hold a pixel."""
    return [(first, min(lanes, channels - first)) for first in range(0, channels, lanes)]


_WRITERS = {
    NoneType: write_copy,
    QuantizePixels: write_copy,
    AddLayer: write_add,
    Upsample2x: write_copy,
    ConcatLayer: write_concat,
    AveragePool: write_average,
}


@dataclass(frozen=True)
class ArgmaxKernel:
    """The class map of logits that lie plain."""

    shape: Shape

    def build(self, _: Instructions) -> tirx.PrimFunc:
        """PrimFunc (logits, out). Maximizes value · 256 + (255 - index), unique per channel: the lowest index wins."""
        height, width, channels = self.shape[1:]

        def body(logits: tirx.Buffer, out: tirx.Buffer) -> None:
            memory, classes = flat(logits), flat(out)
            with rows(height, height * width * channels // 4) as y, T.serial(width) as z:
                pixel = y * width + z
                parts = [best_of(memory, pixel * channels + first, first, count) for first, count in powers(channels)]
                best = reduce(T.max, parts) & tirx.const(255, "int16")
                T.buffer_store(classes, T.Cast("uint8", tirx.const(255, "int16") - best), [pixel])

        return build_kernel([("logits", self.shape, "int8")], [("out", self.shape[:3], "uint8")], body)


def best_of(memory: tirx.Buffer, start: Index, first: int, count: int) -> tirx.Expr:
    """The greatest of value · 256 + (255 - index), int16, over `count` bytes from `start` on; `first` is an index."""
    if count == 1:
        return T.Cast("int16", memory[start]) * tirx.const(256, "int16") + tirx.const(255 - first, "int16")
    weighted = T.Cast(f"int16x{count}", memory[T.ramp(start, 1, count)]) * T.broadcast(tirx.const(256, "int16"), count)
    order = T.ramp(tirx.const(255 - first, "int16"), tirx.const(-1, "int16"), count)
    return T.call_llvm_pure_intrin("int16", "llvm.vector.reduce.smax", weighted + order)


@dataclass(frozen=True)
class FlattenKernel:
    """Plain maps one behind the other: in memory, their rows already are the rows of the result."""

    shapes: tuple[Shape, ...]
    fields: int

    @property
    def sizes(self) -> list[int]:
        """Bytes of the maps."""
        return [prod(shape) for shape in self.shapes]

    def build(self, cpu: Instructions) -> tirx.PrimFunc:
        """PrimFunc (maps, out)."""
        return FlattenGroup((self,)).build(cpu)


@dataclass(frozen=True)
class FlattenGroup:
    """Several of them, in equal parts of every map: a thread copies those rows that it has written."""

    kernels: tuple[FlattenKernel, ...]

    def build(self, _: Instructions) -> tirx.PrimFunc:
        """PrimFunc (maps of the first one, of the second one, ..., all outputs)."""
        inputs, outputs = [], []
        for number, kernel in enumerate(self.kernels):
            inputs += [(f"map{number}_{index}", shape, "int8") for index, shape in enumerate(kernel.shapes)]
            outputs.append((f"out{number}", (sum(kernel.sizes) // kernel.fields, kernel.fields), "int8"))

        def body(*buffers: tirx.Buffer) -> None:
            maps, written = iter(buffers[: len(inputs)]), buffers[len(inputs) :]
            total = sum(sum(kernel.sizes) for kernel in self.kernels)
            with rows(PARTS, total // COPIED_IN_A_CYCLE) as part:
                for kernel, out in zip(self.kernels, written, strict=True):
                    ends = accumulate(kernel.sizes)
                    for size, end in zip(kernel.sizes, ends, strict=True):
                        copy_part(flat(next(maps)), flat(out), end - size, size, part)

        return build_kernel(inputs, outputs, body)


def copy_part(source: tirx.Buffer, out: tirx.Buffer, start: int, size: int, part: Index) -> None:
    """One of PARTS equal parts of `size` bytes, to `out` from `start` on; the last pieces overlap what is there."""
    count = largest_power(min(size, WIDEST))
    pieces = -(-size // (count * PARTS))
    with T.serial(pieces) as piece:
        first = T.min((part * pieces + piece) * count, size - count)
        T.buffer_store(out, source[run_of(first, count)], [run_of(start + first, count)])
