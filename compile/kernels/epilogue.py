"""From a convolution's sums to stored bytes: residual, ReLU, requantization and saturation.

There are two ways. `WideEpilogue` converts sums to float32 and scales them; it holds for all that the certificate
allows. `NarrowEpilogue` takes half the instructions, where sums stay under 2^22 and results fit into 16 bits before
they are limited. Its sums start at the bits of the float32 1.5 · 2^23, so in the end, seen as a float32, they are
1.5 · 2^23 + sum. One addition takes that to 1.5 · 2^(23 + d) + sum, where a float32's last bit is worth 2^d: it rounds
sum / 2^d to the nearest integer, ties to even. The low 16 bits of the result are that integer.

Per output channel, d = grid - out_shift is the distance of the requantization.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.requantize import ROUNDER, ROUNDER_BITS, Requantize, all_lanes, integers, multiply_add
from compile.storage import Storage

Distances = NDArray[np.int64]  # one to an output channel
NARROW_SUMS = (1 << 22) - 256  # that an offset of 128 does not lead out of the float32 from 2^23 to 2^24
NARROW_RESULTS = (1 << 15) - 256
NARROW_DISTANCES = range(17)  # whose addends are exact in float32


@dataclass(frozen=True)
class Epilogue(ABC):
    """What follows the dot products.

    `residual` is the storage of what is added before the requantization, `residual_distance` its shift - out_shift.
    """

    requantize: Requantize
    residual: Storage | None = None
    residual_distance: int = 0

    CHANNEL_DTYPES: ClassVar[tuple[str, ...]]  # of the constants that every output channel has

    @abstractmethod
    def channel_constants(self, distances: Distances) -> Sequence[NDArray[np.generic]]:
        """Those constants, of CHANNEL_DTYPES, one to an output channel."""

    @abstractmethod
    def first_sums(self, distances: Distances) -> NDArray[np.int64]:
        """What is added to every channel's bias beforehand."""

    @abstractmethod
    def rounded(self, register: "Register", lanes: int) -> tirx.Expr:
        """A register of sums, to be limited."""

    @abstractmethod
    def limited(self, values: Sequence[tirx.Expr], lanes: int) -> Iterator[tirx.Expr]:
        """The bytes of registers that are rounded, each bound to a name."""

    def __call__(self, registers: Sequence["Register"], lanes: int) -> list[tirx.Expr]:
        """The bytes of these registers, as the target's storage has them."""
        return list(self.limited([T.Bind(self.rounded(register, lanes)) for register in registers], lanes))


@dataclass(frozen=True)
class Register:
    """`sums` int32, the `constants` of their channels, the `residual` as stored; of as many lanes all."""

    sums: tirx.Expr
    constants: Sequence[tirx.Expr]
    residual: tirx.Expr | None


class WideEpilogue(Epilogue):
    """For all sums and distances that the certificate allows."""

    CHANNEL_DTYPES = ("float32",)  # the scale 2^-d

    def channel_constants(self, distances: Distances) -> Sequence[NDArray[np.generic]]:
        return [np.ldexp(np.float32(1), -distances).astype(np.float32)]

    def first_sums(self, distances: Distances) -> NDArray[np.int64]:
        return np.zeros_like(distances)

    def rounded(self, register: Register, lanes: int) -> tirx.Expr:
        (scale,), rounder = register.constants, self.requantize.rounder(lanes)
        value = T.Cast(f"float32x{lanes}", register.sums)
        if self.residual is None:
            return multiply_add(value, scale, rounder, lanes)
        residual_scale = 2.0**-self.residual_distance
        value = multiply_add(value, scale, all_lanes(-self.residual.offset * residual_scale, lanes), lanes)
        added = T.Cast(f"float32x{lanes}", register.residual)
        return multiply_add(added, all_lanes(residual_scale, lanes), value, lanes) + rounder

    def limited(self, values: Sequence[tirx.Expr], lanes: int) -> Iterator[tirx.Expr]:
        for value in values:
            yield T.Bind(self.requantize.limited(integers(value, lanes), lanes))


class NarrowEpilogue(Epilogue):
    """See the module's text, and `fits`."""

    CHANNEL_DTYPES = ("float32", "int32")  # the addend that rounds, the left shift of a residual

    @classmethod
    def fits(cls, largest_sums: NDArray[np.int64], distances: Distances, residual_distance: int) -> bool:
        """Whether it is exact for channels with sums, aligned residual included, up to these."""
        finest = max(NARROW_DISTANCES.start, residual_distance)
        return bool(
            largest_sums.max() <= NARROW_SUMS
            and finest <= distances.min()
            and distances.max() < NARROW_DISTANCES.stop
            and (largest_sums >> distances).max() <= NARROW_RESULTS
        )

    def channel_constants(self, distances: Distances) -> Sequence[NDArray[np.generic]]:
        addend = ROUNDER * (np.exp2(distances) - 1) + self.requantize.target.offset * np.exp2(distances)
        return [addend.astype(np.float32), self.alignments(distances).astype(np.int32)]

    def first_sums(self, distances: Distances) -> NDArray[np.int64]:
        offset = 0 if self.residual is None else self.residual.offset
        return ROUNDER_BITS - (offset << self.alignments(distances))

    def alignments(self, distances: Distances) -> NDArray[np.int64]:
        """By how many bits a residual goes to the left to meet the sums."""
        return distances - self.residual_distance

    def rounded(self, register: Register, lanes: int) -> tirx.Expr:
        sums, (addend, alignment) = register.sums, register.constants
        if self.residual is not None:
            sums = sums + (T.Cast(f"int32x{lanes}", register.residual) << alignment)
        return T.reinterpret(f"float32x{lanes}", sums) + addend

    def limited(self, values: Sequence[tirx.Expr], lanes: int) -> Iterator[tirx.Expr]:
        for first in range(0, len(values), 2):
            pair = values[first : first + 2]
            words = [T.reinterpret(f"int16x{2 * lanes}", value) for value in (pair[0], pair[-1])]
            low = tirx.Shuffle(words, list(range(0, 4 * lanes, 2)))
            both = T.Bind(self.requantize.limited(low, 2 * lanes))
            for half in range(len(pair)):
                yield T.Bind(tirx.Shuffle([both], list(range(half * lanes, (half + 1) * lanes))))
