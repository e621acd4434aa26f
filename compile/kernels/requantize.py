"""From sums to stored bytes: residual, ReLU, requantization and saturation of a register of int32 lanes.

It goes through float32, exactly. A sum on its accumulator's grid, aligned residual included, is an integer below 2^24
(the certificate), so float32 holds it; times a power of two it stays exact. Adding 1.5 · 2^23 leaves no bit below 1:
the processor rounds to the nearest integer, ties to even, which is the rule of quant/arith.py. Seen as an int32, the
float is that integer plus a constant, in order even far outside int8; so it is limited there, ReLU included, and its
low byte is the result.
"""

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.storage import Storage
from quant.arith import INT8_MAX, INT8_MIN

ROUNDER = float(3 << 22)  # 1.5 · 2^23
ROUNDER_BITS = 0x4B400000  # the same float32 seen as an int32


@dataclass(frozen=True)
class Requantize:
    """How sums become bytes of the storage `target`.

    `residual` is the storage of what is added before, `residual_scale` 2^(out_shift - its shift).
    """

    target: Storage
    relu: bool
    residual: Storage | None = None
    residual_scale: float = 1.0

    def __call__(self, sums: tirx.Expr, scale: tirx.Expr, residual: tirx.Expr | None, lanes: int) -> tirx.Expr:
        """`sums` int32, `scale` float32: 2^(out_shift - grid) per lane, `residual` as stored. Returns bytes."""
        value = T.Cast(f"float32x{lanes}", sums)
        if self.residual is not None:
            value = multiply_add(value, scale, all_lanes(-self.residual.offset * self.residual_scale, lanes), lanes)
            added = T.Cast(f"float32x{lanes}", residual)
            return self.rounded(multiply_add(added, all_lanes(self.residual_scale, lanes), value, lanes), lanes)
        return self.limited(multiply_add(value, scale, self.rounder(lanes), lanes), lanes)

    def rounded(self, value: tirx.Expr, lanes: int) -> tirx.Expr:
        """float32 on the output's grid, exact -> bytes."""
        return self.limited(value + self.rounder(lanes), lanes)

    def rounder(self, lanes: int) -> tirx.Expr:
        """What makes an integer of a float32 that it is added to."""
        return all_lanes(ROUNDER + self.target.offset, lanes)

    def limited(self, value: tirx.Expr, lanes: int) -> tirx.Expr:
        """float32 to which the rounder was added -> bytes."""
        zero = ROUNDER_BITS + self.target.offset
        # unsigned bytes without an offset are a storage for what is not negative anyway
        lowest = 0 if self.relu or (self.target.dtype == "uint8" and self.target.offset == 0) else INT8_MIN
        bits = T.reinterpret(f"int32x{lanes}", value)
        bits = T.max(bits, all_lanes(zero + lowest, lanes))
        bits = T.min(bits, all_lanes(zero + INT8_MAX, lanes))
        # this leaves the low byte alone and costs nothing; TVM wants to see that the cast loses nothing
        return T.Cast(f"{self.target.dtype}x{lanes}", bits - all_lanes(ROUNDER_BITS, lanes))


def multiply_add(a: tirx.Expr, b: tirx.Expr, c: tirx.Expr, lanes: int) -> tirx.Expr:
    """a · b + c in float32, rounded once."""
    return T.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.fma", a, b, c)


def all_lanes(value: float, lanes: int) -> tirx.Expr:
    """The constant in every lane: int32 for an int, else float32."""
    return T.broadcast(tirx.const(value, "int32" if isinstance(value, int) else "float32"), lanes)
