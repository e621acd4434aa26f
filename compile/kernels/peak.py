"""A kernel that does nothing but dot products in registers: the most that the processor can do of them."""

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script.builder import ir as T  # noqa: N812  # the name that TVM's own texts use

from compile.kernels.builder import build_kernel
from compile.kernels.instructions import STEP, Instructions

SUMS = 12  # independent ones, more than a dot product's latency in cycles times those begun in one
ROUNDS = 1 << 14


@dataclass(frozen=True)
class PeakKernel:
    """PrimFunc (x int32 (1,), weights int8 (one register), out int32 (SUMS registers))."""

    def build(self, cpu: Instructions) -> tirx.PrimFunc:
        """The kernel with the dot product of these instructions."""
        lanes = cpu.lanes
        inputs = [("x", (1,), "int32"), ("weights", (STEP * lanes,), "int8")]

        def body(x: tirx.Buffer, weights: tirx.Buffer, out: tirx.Buffer) -> None:
            sums = T.sblock_alloc_buffer((SUMS * lanes,), "int32")
            every = [T.ramp(number * lanes, 1, lanes) for number in range(SUMS)]
            for index in every:
                T.buffer_store(sums, T.broadcast(0, lanes), [index])
            with T.serial(ROUNDS):
                for index in every:
                    dot = cpu.dot(sums[index], T.broadcast(x[0], lanes), weights[T.ramp(0, 1, STEP * lanes)], True)
                    T.buffer_store(sums, dot, [index])
            for index in every:
                T.buffer_store(out, sums[index], [index])

        return build_kernel(inputs, [("out", (SUMS * lanes,), "int32")], body)

    @staticmethod
    def macs(cpu: Instructions) -> int:
        """Multiply-adds of one call."""
        return SUMS * ROUNDS * STEP * cpu.lanes
