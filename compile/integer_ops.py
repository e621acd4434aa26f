"""The integer arithmetic of quant/arith.py spelt in Relax operators.

int8 between layers, int32 inside them, no float anywhere. Each function returns the Relax expression of one rule of
docs/integer.md. Channels are the last axis.
"""

from tvm import relax
from tvm.ir import GenericConst
from tvm.relax import op

from quant.arith import INT8_MAX, INT8_MIN


def int32(value: int) -> GenericConst:
    """An int32 scalar."""
    return relax.const(value, "int32")


def widen(value: relax.Expr) -> relax.Expr:
    """int8 -> int32."""
    return op.astype(value, "int32")


def left_align(value: relax.Expr, shift: relax.Expr, grid: relax.Expr) -> relax.Expr:
    """int32 on `shift` -> int32 on the finer `grid`: value * 2^(grid - shift)."""
    return op.left_shift(value, op.subtract(grid, shift))


def saturate(value: relax.Expr) -> relax.Expr:
    """int32 -> int32 in [-128, 127]."""
    return op.maximum(op.minimum(value, int32(INT8_MAX)), int32(INT8_MIN))


def requantize(accumulator: relax.Expr, accumulator_shift: relax.Expr, out_shift: int) -> relax.Expr:
    """int32 on `accumulator_shift` (scalar or one per channel) -> int8 on `out_shift`.

    n = accumulator_shift - out_shift. Where n > 0 the division by 2^n rounds half to even:
    (a + 2^(n-1) - 1 + ((a >> n) & 1)) >> n. Where n <= 0 both corrections below are 0 and the shift comes after the
    first clip, since shifting an int32 first could overflow.
    """
    distance = op.subtract(accumulator_shift, int32(out_shift))
    right = op.maximum(distance, int32(0))
    left = op.maximum(op.negative(distance), int32(0))
    odd_mask = op.minimum(right, int32(1))
    below_half = op.subtract(op.right_shift(op.left_shift(int32(1), right), int32(1)), odd_mask)
    odd = op.bitwise_and(op.right_shift(accumulator, right), odd_mask)
    rounded = op.right_shift(op.add(op.add(accumulator, below_half), odd), right)
    return op.astype(saturate(op.left_shift(saturate(rounded), left)), "int8")


def relu(value: relax.Expr) -> relax.Expr:
    """On the int32 value, before rounding."""
    return op.maximum(value, int32(0))
