"""From exact values on a layer's output grid to stored bytes: rounding half to even, ReLU and saturation.

It goes through float32, exactly: values and sums are integers below 2^24 (the certificate), times a power of two.
Adding 1.5 · 2^23 leaves no bit below 1: the processor rounds to the nearest integer, ties to even, which is the rule of
quant/arith.py. Seen as an int32, the float is that integer plus a constant, in order even far outside int8; so it is
limited there, ReLU included.
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
    """How values become bytes of the storage `target`."""

    target: Storage
    relu: bool

    def rounded(self, value: tirx.Expr, lanes: int) -> tirx.Expr:
        """float32 on the output's grid, exact -> bytes."""
        return self.limited(integers(value + self.rounder(lanes), lanes), lanes)

    def rounder(self, lanes: int) -> tirx.Expr:
        """What makes an integer of a float32 that it is added to; the target's offset comes with it."""
        return all_lanes(ROUNDER + self.target.offset, lanes)

    def limited(self, value: tirx.Expr, lanes: int) -> tirx.Expr:
        """Rounded values plus the target's offset, int32 or int16 -> bytes."""
        # unsigned bytes without an offset are a storage for what is not negative anyway
        lowest = 0 if self.relu or (self.target.dtype == "uint8" and self.target.offset == 0) else INT8_MIN
        value = T.max(value, tirx.const(self.target.offset + lowest, value.ty.dtype))
        value = T.min(value, tirx.const(self.target.offset + INT8_MAX, value.ty.dtype))
        return T.Cast(f"{self.target.dtype}x{lanes}", value)


def integers(value: tirx.Expr, lanes: int) -> tirx.Expr:
    """What a float32 to which 1.5 · 2^23 was added is without it, as an int32."""
    return T.reinterpret(f"int32x{lanes}", value) - all_lanes(ROUNDER_BITS, lanes)


def multiply_add(a: tirx.Expr, b: tirx.Expr, c: tirx.Expr, lanes: int) -> tirx.Expr:
    """a · b + c in float32, rounded once."""
    return T.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.fma", a, b, c)


def all_lanes(value: float, lanes: int) -> tirx.Expr:
    """The constant in every lane: int32 for an int, else float32."""
    return T.broadcast(tirx.const(value, "int32" if isinstance(value, int) else "float32"), lanes)
