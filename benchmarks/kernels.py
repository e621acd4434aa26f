"""One kernel at a time: the shapes of convolutions of `configs/4pe_resize`, in microseconds and as a share of the peak.

    python benchmarks/kernels.py [--target T] [--tile PIXELS] [--wide] [NAME …]

One thread, the best of many calls; the peak is measured between the kernels. `--tile` replaces the number of pixels
whose sums are in registers at a time, `--wide` takes the epilogue for large sums. docs/kernels.md quotes its figures.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tvm
from rich.console import Console
from rich.table import Table
from tvm import tirx

from compile.kernels.conv import ConvKernel
from compile.kernels.epilogue import Epilogue, NarrowEpilogue, WideEpilogue
from compile.kernels.memory import Layout
from compile.kernels.packing import Window
from compile.kernels.peak import PeakKernel
from compile.kernels.requantize import Requantize
from compile.storage import PICTURE, PLAIN, Storage
from compile.targets import Target, find_target
from runtime.engine import set_threads
from runtime.processor import processor_name

CALLS, ROUNDS, PEAK_ROUNDS = 10, 15, 20
BEHIND_RELU, BORDERED = Storage("uint8"), Storage("uint8", border=1)
SIGNED, SIGNED_BORDERED = Storage("uint8", 128), Storage("uint8", 128, 1)
# name: kernel size, stride, groups, channels in and out, output's height and width, storage of source, target, residual
SHAPES: dict[str, tuple[int, int, int, int, int, int, int, Storage, Storage, Storage | None]] = {
    "stem": (3, 2, 1, 3, 16, 224, 480, replace(PICTURE, border=1), SIGNED_BORDERED, None),
    "8 to 8, strided": (3, 2, 2, 16, 16, 112, 240, SIGNED_BORDERED, BEHIND_RELU, None),
    "8 to 16, stride 4": (3, 1, 4, 32, 64, 112, 240, BORDERED, BEHIND_RELU, None),
    "8 to 16, stride 16": (3, 1, 8, 64, 128, 28, 60, BORDERED, BEHIND_RELU, None),
    "8 to 16, stride 64": (3, 1, 16, 128, 256, 7, 15, BORDERED, BEHIND_RELU, None),
    "1x1 64 to 32": (1, 1, 1, 64, 32, 112, 240, BEHIND_RELU, BORDERED, None),
    "1x1 64 to 32, residual": (1, 1, 1, 64, 32, 112, 240, BEHIND_RELU, BORDERED, SIGNED),
    "1x1 128 to 64": (1, 1, 1, 128, 64, 56, 120, BEHIND_RELU, BORDERED, None),
    "1x1 32 to 32": (1, 1, 1, 32, 32, 112, 240, SIGNED_BORDERED, SIGNED, None),
    "1x1 16 to 16": (1, 1, 1, 16, 16, 112, 240, BEHIND_RELU, BORDERED, None),
    "head 64 to 24": (1, 1, 1, 64, 24, 56, 120, BEHIND_RELU, PLAIN, None),
    "head 32 to 12": (1, 1, 1, 32, 12, 112, 240, BEHIND_RELU, PLAIN, None),
}


def kernel_of(name: str, epilogue: type[Epilogue]) -> ConvKernel:
    """The kernel of a shape. Targets without an offset are behind a ReLU."""
    size, stride, groups, channels_in, channels_out, height, width, source, target, residual = SHAPES[name]
    window = Window(size, stride, size // 2, groups, channels_in, channels_out)
    end = epilogue(Requantize(target, relu=target in (BEHIND_RELU, BORDERED)), residual, residual_distance=2)
    shape_in, shape_out = (1, height * stride, width * stride, channels_in), (1, height, width, channels_out)
    return ConvKernel(window, Layout(shape_in, source), Layout(shape_out, target), end)


def compiled(function: tirx.PrimFunc, target: Target) -> Callable[..., None]:
    """A PrimFunc as a function of tensors."""
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    return tvm.compile(module, target=target.llvm())["kernel"]  # type: ignore[no-any-return]


def best_of(run: Callable[[], None], rounds: int, calls: int) -> float:
    """Seconds of a call."""
    run()
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def arguments_of(function: tirx.PrimFunc) -> list[tvm.runtime.Tensor]:
    """Values of all kinds: speed does not depend on them."""
    rng = np.random.default_rng(0)
    tensors = []
    for parameter in function.params:
        shape, dtype = [int(size) for size in parameter.ty.shape], str(parameter.ty.dtype)
        low, high = (1, 2) if dtype == "float32" else (0, 8) if dtype == "int32" else (0, 127)
        tensors.append(tvm.runtime.tensor(rng.integers(low, high, shape).astype(dtype)))
    return tensors


def ready(function: tirx.PrimFunc, target: Target) -> Callable[[], None]:
    """A PrimFunc compiled, with its arguments."""
    kernel, tensors = compiled(function, target), arguments_of(function)
    return lambda: kernel(*tensors)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHAPES)} (default: all)")
    parser.add_argument("--target", default="native", metavar="T", help="as for compile.build")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="pixels at a time (default: the target's own)")
    parser.add_argument("--wide", action="store_true", help="the epilogue for large sums")
    options = parser.parse_args(arguments)
    target, epilogue = find_target(options.target), WideEpilogue if options.wide else NarrowEpilogue
    cpu = replace(target.instructions, tile=options.tile) if options.tile else target.instructions
    set_threads(1)
    run_peak = ready(PeakKernel().build(cpu), target)
    table = Table(title=f"{target.name} on {processor_name()}, one thread, tile {cpu.tile}, {epilogue.__name__}")
    for title in ("kernel", "µs", "GMAC/s", "% of peak"):
        table.add_column(title, justify="left" if title == "kernel" else "right")
    for name in options.names or SHAPES:
        kernel = kernel_of(name, epilogue)
        seconds = best_of(ready(kernel.build(cpu), target), ROUNDS, CALLS)
        peak = PeakKernel.macs(cpu) / best_of(run_peak, PEAK_ROUNDS, 1)
        rate = kernel.macs / seconds
        table.add_row(name, f"{seconds * 1e6:.1f}", f"{rate / 1e9:.1f}", f"{100 * rate / peak:.1f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
