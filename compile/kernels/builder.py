"""Opens a kernel: what all of them have around their loops."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import TypeAlias

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

Parameter = tuple[str, Sequence[int], str]  # name, shape, dtype
Index: TypeAlias = int | tirx.Expr
WORTH_THREADS = 12_000  # cycles: a second thread wakes and is waited for in about 2 µs


def build_kernel(inputs: Sequence[Parameter], outputs: Sequence[Parameter], body: Callable[..., None]) -> tirx.PrimFunc:
    """The PrimFunc of these parameters; `body` takes their buffers and writes the loops.

    TVM is not told that they are different memory, though they are: knowing that what is stored changes no weights,
    LLVM would load those of several blocks beforehand and, with no registers left for them, put them on the stack.
    """
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        T.func_name("kernel")
        T.func_attr({"tirx.noalias": False})
        read, written = (
            [T.arg(name, T.buffer(tuple(shape), dtype)) for name, shape, dtype in parameters]
            for parameters in (inputs, outputs)
        )
        with T.sblock("root"):
            T.reads(*(buffer[(0,) * len(buffer.shape)] for buffer in read))
            T.writes(*(buffer[(0,) * len(buffer.shape)] for buffer in written))
            body(*read, *written)
    return builder.get()


def rows(height: int, cycles: int) -> AbstractContextManager[tirx.Var]:
    """The loop over a feature map's rows, on all threads if it takes so many cycles that waking them pays."""
    loop = T.parallel if cycles >= WORTH_THREADS else T.serial
    return loop(height)


def flat(buffer: tirx.Buffer) -> tirx.Buffer:
    """The same memory with one index."""
    return T.decl_buffer((prod(int(extent) for extent in buffer.shape),), buffer.dtype, data=buffer.data)
