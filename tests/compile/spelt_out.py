"""ARM's dot product in plain TIR, so that its kernels run on any processor."""

from dataclasses import replace

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.instructions import ARM, STEP, less_128


def sdot(sums: tirx.Expr, x: tirx.Expr, weights: tirx.Expr, small: bool) -> tirx.Expr:
    """What the reference manual says of SDOT: per lane, four products of signed bytes, added in int32."""
    bytes_of_x = T.reinterpret("int8x16", x if small else less_128(x, 4))
    products = T.Bind(T.Cast("int32x16", bytes_of_x) * T.Cast("int32x16", weights))
    for byte in range(STEP):
        sums = sums + tirx.Shuffle([products], list(range(byte, 16, STEP)))
    return sums


SPELT_OUT_ARM = replace(ARM, dot=sdot)
