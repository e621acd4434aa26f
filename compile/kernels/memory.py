"""Loads, stores and addresses of feature maps; their buffers are flat here, and `Layout` knows where a value lies."""

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.builder import Index, Parameter
from compile.kernels.instructions import STEP
from compile.layers import Shape
from compile.storage import Storage

WIDEST = 64  # bytes of the largest registers


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
    """The first `valid` lanes of a register, in pieces of powers of two."""
    if valid == lanes:
        T.buffer_store(memory, value, [T.ramp(start, 1, lanes)])
        return
    value = T.Bind(value)
    for first, count in powers(valid):
        piece = tirx.Shuffle([value], list(range(first, first + count)))
        T.buffer_store(memory, piece, [run_of(start + first, count)])


def powers(total: int) -> list[tuple[int, int]]:
    """`total` things in pieces of falling powers of two: the first one's index and the number of each."""
    pieces, first = [], 0
    while first < total:
        pieces.append((first, largest_power(total - first)))
        first += pieces[-1][1]
    return pieces


def run_of(start: Index, count: int) -> Index:
    """Addresses of `count` bytes in a row; TVM has no vectors of one."""
    return start if count == 1 else T.ramp(start, 1, count)


def largest_power(limit: int) -> int:
    """The largest power of two that is no larger."""
    return 1 << (limit.bit_length() - 1)


def fill(memory: tirx.Buffer, start: Index, size: int, value: tirx.Expr) -> None:
    """`size` bytes with the same value; the last piece overlaps the one before it."""
    count = largest_power(min(size, WIDEST))
    with T.serial(-(-size // count)) as piece:
        first = start + T.min(piece * count, size - count)
        T.buffer_store(memory, value if count == 1 else T.broadcast(value, count), [run_of(first, count)])


def write_border(memory: tirx.Buffer, layout: Layout) -> None:
    """Real zeros around the feature map."""
    border, height, width = layout.storage.border, layout.height, layout.width
    if not border:
        return
    zero = tirx.const(layout.storage.offset, layout.storage.dtype)
    for row in (*range(-border, 0), *range(height, height + border)):
        fill(memory, layout.address(row, -border), (width + 2 * border) * layout.channels, zero)
    with T.serial(height) as row:
        for column in (-border, width):
            fill(memory, layout.address(row, column), border * layout.channels, zero)
