"""Loads, stores and addresses of feature maps; their buffers are flat here, and `Layout` knows where a value lies."""

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.builder import Index, Parameter
from compile.kernels.instructions import STEP
from compile.layers import Shape
from compile.storage import Storage


@dataclass(frozen=True)
class Layout:
    """A feature map (1, H, W, C) in its storage."""

    shape: Shape
    storage: Storage

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]

    @property
    def channels(self) -> int:
        return self.shape[3]

    def parameter(self, name: str) -> Parameter:
        """Of a kernel."""
        return name, self.storage.shape(self.shape), self.storage.dtype

    def address(self, row: Index, column: Index, channel: Index = 0) -> Index:
        """Of a value, in bytes; rows and columns count from the first real pixel and may lie in the border."""
        border = self.storage.border
        return ((row + border) * (self.width + 2 * border) + column + border) * self.channels + channel


def four_bytes(memory: tirx.Buffer, start: Index, count: int) -> tirx.Expr:
    """`count` bytes from `start` on as an int32, the first one lowest; at most four."""
    if count == STEP:
        return T.reinterpret("int32", memory[T.ramp(start, 1, STEP)])
    value = T.Cast("int32", memory[start])
    for byte in range(1, count):
        value = value | (T.Cast("int32", memory[start + byte]) << (8 * byte))
    return value


def load(memory: tirx.Buffer, start: Index, valid: int, lanes: int) -> tirx.Expr:
    """A register's lanes, of which the first `valid` come from memory, 0 in the others."""
    if valid == lanes:
        return memory[T.ramp(start, 1, lanes)]
    values = [memory[start + lane] for lane in range(valid)] + [tirx.const(0, memory.dtype)] * (lanes - valid)
    return tirx.Shuffle(values, list(range(lanes)))


def store(memory: tirx.Buffer, start: Index, value: tirx.Expr, valid: int, lanes: int) -> None:
    """The first `valid` lanes of a register."""
    if valid == lanes:
        T.buffer_store(memory, value, [T.ramp(start, 1, lanes)])
        return
    value = T.Bind(value)
    for lane in range(valid):
        T.buffer_store(memory, tirx.Shuffle([value], [lane]), [start + lane])


def write_border(memory: tirx.Buffer, layout: Layout) -> None:
    """Real zeros around the feature map."""
    border = layout.storage.border
    if not border:
        return
    zero = tirx.const(layout.storage.offset, layout.storage.dtype)
    height, width = layout.height, layout.width
    for row in (*range(-border, 0), *range(height, height + border)):
        with T.serial((width + 2 * border) * layout.channels) as byte:
            T.buffer_store(memory, zero, [layout.address(row, -border) + byte])
    with T.serial(height) as row:
        for column in (-border, width):
            with T.serial(border * layout.channels) as byte:
                T.buffer_store(memory, zero, [layout.address(row, column) + byte])
