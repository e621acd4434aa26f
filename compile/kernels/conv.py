"""One generator for all convolutions: sums in registers, dot products of four bytes, everything else in the store.

    for each row, each tile of pixels, each block of 16 output channels:
        sums[tile][16] = bias
        for each kernel row, run and step of the window:    sums += four bytes (broadcast) · weights, for each pixel
        for each pixel:                                     residual, ReLU, requantization, store

The last tile of a row overlaps the one before it, so any width goes. compile/kernels/packing.py says what a window is,
compile/kernels/epilogue.py how sums become bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.builder import Index, Parameter, build_kernel, flat, rows
from compile.kernels.epilogue import Epilogue, Register
from compile.kernels.instructions import STEP, Instructions
from compile.kernels.memory import Layout, four_bytes, load, store, write_border
from compile.kernels.packing import BLOCK, Window

WRITTEN_OUT = 40  # steps of a window of several pixels, up to which the code holds each of them


@dataclass(frozen=True)
class ConvKernel:
    """All that a convolution's code depends on."""

    window: Window
    source: Layout
    target: Layout
    epilogue: Epilogue

    @property
    def residual(self) -> Layout | None:
        """What is added before the requantization, in the shape of the output."""
        storage = self.epilogue.residual
        return None if storage is None else Layout(self.target.shape, storage)

    @property
    def macs(self) -> int:
        """Multiply-adds of the layer itself, without those on padding channels."""
        _, height, width, channels = self.target.shape
        return height * width * channels * self.window.kernel**2 * self.window.channels_in // self.window.groups

    @property
    def dots(self) -> int:
        """Dot products of a register of BLOCK lanes, of which the best processors begin one in a cycle."""
        _, height, width, _ = self.target.shape
        window = self.window
        return height * width * window.blocks * window.kernel * window.runs * window.steps

    @property
    def inputs(self) -> list[Parameter]:
        """x, weight, bias, the epilogue's constants[, residual]: feature maps as they are stored, the rest packed."""
        window = self.window
        lanes_in_all = window.blocks * BLOCK
        constants = enumerate(self.epilogue.CHANNEL_DTYPES)
        return [
            self.source.parameter("x"),
            ("weight", (window.blocks, window.kernel, window.runs, window.steps, BLOCK * STEP), "int8"),
            ("bias", (lanes_in_all,), "int32"),
            *((f"channel{index}", (lanes_in_all,), dtype) for index, dtype in constants),
            *([self.residual.parameter("residual")] if self.residual else []),
        ]

    def build(self, cpu: Instructions) -> tirx.PrimFunc:
        """PrimFunc (inputs, out)."""
        return ConvGroup((self,)).build(cpu)


@dataclass(frozen=True)
class ConvGroup:
    """Convolutions of the same height that do not wait for each other, in one loop over their rows."""

    kernels: tuple[ConvKernel, ...]

    def build(self, cpu: Instructions) -> tirx.PrimFunc:
        """PrimFunc (inputs of the first one, of the second one, ..., all outputs)."""
        inputs = [numbered(entry, number) for number, kernel in enumerate(self.kernels) for entry in kernel.inputs]
        outputs = [kernel.target.parameter(f"out{number}") for number, kernel in enumerate(self.kernels)]

        def body(*buffers: tirx.Buffer) -> None:
            read, written = iter(buffers[: len(inputs)]), buffers[len(inputs) :]
            codes = [
                _Code(kernel, cpu, [*islice(read, len(kernel.inputs)), out])
                for kernel, out in zip(self.kernels, written, strict=True)
            ]
            with rows(self.kernels[0].target.height, sum(kernel.dots for kernel in self.kernels)) as y:
                for code in codes:
                    code.row(y)
            for code in codes:
                write_border(code.memory, code.kernel.target)

        return build_kernel(inputs, outputs, body)


def numbered(parameter: Parameter, number: int) -> Parameter:
    """The same under a name of its own."""
    name, shape, dtype = parameter
    return f"{name}_{number}", shape, dtype


def tile_of(width: int, largest: int) -> int:
    """Pixels of a tile: as many as registers allow, unless with fewer there is less to compute twice."""
    return min(range(1, min(width, largest) + 1), key=lambda tile: (-(-width // tile) * (tile + 1), -tile))


class _Code:
    """Writes a row of a convolution into the builder that is open."""

    def __init__(self, kernel: ConvKernel, cpu: Instructions, buffers: Sequence[tirx.Buffer]) -> None:
        x, self.weight, self.bias, *others, out = buffers
        self.x, self.memory = flat(x), flat(out)
        self.residual = flat(others.pop()) if kernel.residual else None
        self.constants = others
        self.kernel, self.window, self.cpu = kernel, kernel.window, cpu
        self.tile = tile_of(kernel.target.width, cpu.tile)
        self.parts = BLOCK // cpu.lanes  # registers to a block
        self.sums = T.sblock_alloc_buffer((self.tile * BLOCK,), "int32")

    def row(self, y: Index) -> None:
        width, tile = self.kernel.target.width, self.tile
        with T.serial(-(-width // tile)) as number:
            z = number * tile if width % tile == 0 else T.min(number * tile, width - tile)
            for first, count, channels in self.window.alike():
                with T.serial(first, first + count) as block:
                    self.begin(block)
                    self.accumulate(y, z, block)
                    self.finish(y, z, block, channels)

    def begin(self, block: Index) -> None:
        with T.unroll(self.tile) as pixel, T.unroll(self.parts) as part:
            T.buffer_store(self.sums, self.bias[self.register(block, part)], [self.register(pixel, part)])

    def accumulate(self, y: Index, z: Index, block: Index) -> None:
        window = self.window
        if (window.kernel > 1 and window.kernel * window.runs * window.steps <= WRITTEN_OUT) or window.apart:
            # neighbouring pixels share what a window of several reads; of one pixel, registers would hold weights only
            for row, run, step in product(range(window.kernel), range(window.runs), range(window.steps)):
                self.dot_products(y, z, block, row, run, step)
            return
        with T.unroll(window.kernel) as row, T.unroll(window.runs) as run, T.serial(window.steps) as step:
            self.dot_products(y, z, block, row, run, step)

    def dot_products(self, y: Index, z: Index, block: Index, row: Index, run: Index, step: Index) -> None:
        window, width = self.window, STEP * self.cpu.lanes
        small = self.kernel.source.storage.offset == 0
        with T.unroll(self.tile) as pixel:
            corner = y * window.stride - window.padding + row, (z + pixel) * window.stride - window.padding
            first = self.kernel.source.address(*corner, window.first_in(block) + run * window.channels_in)
            for part in range(self.parts):
                sums = self.register(pixel, part)
                weight = self.weight[block, row, run, step, T.ramp(part * width, 1, width)]
                x = self.spread(first, step, part)
                T.buffer_store(self.sums, self.cpu.dot(self.sums[sums], x, weight, small), [sums])

    def spread(self, first: Index, step: Index, part: int) -> tirx.Expr:
        """The four bytes that each lane multiplies; `first` is where the block's input begins at a pixel."""
        window, lanes = self.window, self.cpu.lanes
        if not window.apart:
            return T.broadcast(four_bytes(self.x, first + window.start_of(step), min(STEP, window.run)), lanes)
        count = window.reach // STEP
        fours = T.Bind(T.reinterpret(f"int32x{count}", self.x[T.ramp(first, 1, window.reach)]))
        groups = [window.group_of(part * lanes + lane) for lane in range(lanes)]
        # TVM makes no vector that is longer than all that it is made of
        return tirx.Shuffle([fours] * -(-lanes // count), [group * window.steps + step for group in groups])

    def finish(self, y: Index, z: Index, block: Index, channels: int) -> None:
        lanes = self.cpu.lanes
        parts = range(-(-channels // lanes))
        constants = [[T.Bind(values[self.register(block, part)]) for values in self.constants] for part in parts]
        places, registers = [], []
        for pixel in range(self.tile):
            for part in parts:
                place = y, z + pixel, self.window.first_out(block) + part * lanes
                valid = min(lanes, channels - part * lanes)
                residual = None
                if self.kernel.residual is not None:
                    residual = load(self.residual, self.kernel.residual.address(*place), valid, lanes)
                registers.append(Register(self.sums[self.register(pixel, part)], constants[part], residual))
                places.append((self.kernel.target.address(*place), valid))
        for (address, valid), stored in zip(places, self.kernel.epilogue(registers, lanes), strict=True):
            store(self.memory, address, stored, valid, lanes)

    def register(self, block: Index, part: Index) -> tirx.Expr:
        """Index of a register's lanes, for the block of that number or the pixel's."""
        return T.ramp(block * BLOCK + part * self.cpu.lanes, 1, self.cpu.lanes)
