"""The end of every integer layer, on one int32 value: the TensorIR twin of compile/integer_ops.py's `requantize`."""

from tvm import tirx

from quant.arith import INT8_MAX, INT8_MIN


def saturated(value: tirx.Expr) -> tirx.Expr:
    """int32 -> int32 in [-128, 127]."""
    return tirx.max(tirx.min(value, INT8_MAX), INT8_MIN)


def requantized(value: tirx.Expr, distance: tirx.Expr | int) -> tirx.Expr:
    """int32 -> int8, divided by 2^distance half to even; a distance <= 0 multiplies, clipping before and after."""
    right = tirx.max(distance, 0)
    left = tirx.max(-distance, 0)
    odd_mask = tirx.min(right, 1)
    one = tirx.const(1, "int32")
    below_half = ((one << right) >> 1) - odd_mask
    rounded = (value + below_half + ((value >> right) & odd_mask)) >> right
    return saturated(saturated(rounded) << left).astype("int8")
