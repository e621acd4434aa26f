"""The dot product of four bytes by four in every lane of a register: the one thing that depends on the processor.

`dot(sums, x, weights, small)` returns sums + x[0] w[0] + ... + x[3] w[3] per lane: `sums` int32 per lane, `x` four
unsigned bytes in an int32 per lane, `weights` four signed bytes per lane. Exact for w in -127..127 and x in 0..255, or
in 0..127 where `small` says so.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

Dot = Callable[[tirx.Expr, tirx.Expr, tirx.Expr, bool], tirx.Expr]


@dataclass(frozen=True)
class Instructions:
    """`lanes` int32 values make a register; the sums of `tile` pixels and 16 channels stay in registers.

    `signed`: where x is not small, the dot product takes 128 off its bytes, so nobody else has to.
    """

    lanes: int
    tile: int
    dot: Dot
    signed: bool = False


def dot_vnni512(sums: tirx.Expr, x: tirx.Expr, weights: tirx.Expr, _small: bool) -> tirx.Expr:
    """One vpdpbusd on 512 bits."""
    bytes_of_x = T.reinterpret("uint8x64", x)
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", sums, bytes_of_x, weights)


def dot_vnni256(sums: tirx.Expr, x: tirx.Expr, weights: tirx.Expr, _small: bool) -> tirx.Expr:
    """One vpdpbusd on 256 bits."""
    bytes_of_x = T.reinterpret("uint8x32", x)
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx512.vpdpbusd.256", sums, bytes_of_x, weights)


def dot_avx2(sums: tirx.Expr, x: tirx.Expr, weights: tirx.Expr, small: bool) -> tirx.Expr:
    """vpmaddubsw and vpmaddwd, where two products of neighbours fit into int16: 2 · 127 · 127, 2 · 128 · 127.

    Bytes that are not small are made signed; their signs go to the weights.
    """
    if small:
        bytes_of_x = T.reinterpret("uint8x32", x)
    else:
        signed = T.reinterpret("int8x32", less_128(x, 8))
        weights = T.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.psign.b", weights, signed)
        minimum_stays = tirx.const(False, "bool")  # |-128| is the unsigned byte 128
        magnitude = T.call_llvm_pure_intrin("int8x32", "llvm.abs", signed, minimum_stays)
        bytes_of_x = T.reinterpret("uint8x32", magnitude)
    products = T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", bytes_of_x, weights)
    ones = T.broadcast(tirx.const(1, "int16"), 16)
    return sums + T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", products, ones)


def pairwise(x: tirx.Expr, weights: tirx.Expr, lanes: int) -> tirx.Expr:
    """The dot product in int16: even bytes with even bytes, odd with odd.

    Its shape, products of neighbours added, is what LLVM knows as one instruction (vpmaddwd, vpdpwssd).
    """
    low_byte, eight = (T.broadcast(tirx.const(value, "int16"), 2 * lanes) for value in (255, 8))
    words_of_x = [T.reinterpret(f"int16x{2 * lanes}", x >> T.broadcast(shift, lanes)) & low_byte for shift in (0, 8)]
    words = T.reinterpret(f"int16x{2 * lanes}", weights)
    total = T.broadcast(0, lanes)
    for a, b in zip(words_of_x, ((words << eight) >> eight, words >> eight), strict=True):
        product = T.Bind(T.Cast(f"int32x{2 * lanes}", a) * T.Cast(f"int32x{2 * lanes}", b))
        even, odd = (tirx.Shuffle([product], list(range(first, 2 * lanes, 2))) for first in (0, 1))
        total = total + (even + odd)
    return total


def dot_arm(sums: tirx.Expr, x: tirx.Expr, weights: tirx.Expr, small: bool) -> tirx.Expr:
    """One sdot, whose operands are both signed."""
    bytes_of_x = T.reinterpret("int8x16", x if small else less_128(x, 4))
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", sums, bytes_of_x, weights)


def less_128(x: tirx.Expr, lanes: int) -> tirx.Expr:
    """128 off each of four bytes: their highest bits turned over."""
    return x ^ T.broadcast(tirx.const(-0x7F7F7F80, "int32"), lanes)  # 0x80808080


def plain(lanes: int, tile: int) -> Instructions:
    """Without intrinsics, for registers of any width."""
    return Instructions(lanes, tile, lambda sums, x, weights, _small: sums + pairwise(x, weights, lanes))


STEP = 4  # bytes of a dot product
VNNI512 = Instructions(16, 6, dot_vnni512)
VNNI256 = Instructions(8, 5, dot_vnni256)
ARM = Instructions(4, 5, dot_arm, signed=True)
AVX2 = Instructions(8, 3, dot_avx2, signed=True)
PLAIN512, PLAIN256, PLAIN128 = plain(16, 6), plain(8, 4), plain(4, 2)
