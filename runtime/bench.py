"""`python -m runtime.bench`: how fast a compiled model is on this machine."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.engine import CompiledEngine
from runtime.errors import RuntimeRoomError
from runtime.geometry import Placement
from runtime.image import Picture, read_picture
from runtime.schema import InputGeometry
from runtime.timing import Progress, Statistics, statistics_table

DESCRIPTION = """Time a compiled model on one picture, from network input in memory to all outputs in memory: every head
map, boxes and masks. The time depends on the picture a little (more boxes, more work)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtime.bench", description=DESCRIPTION)
    parser.add_argument(
        "--model", required=True, metavar="SO", help="the .so that compile.build wrote, its .json beside it"
    )
    parser.add_argument("--image", metavar="FILE", help="a picture (default: noise)")
    parser.add_argument("--count", type=_positive, default=200, metavar="N", help="timed runs (default 200)")
    parser.add_argument("--warmup", type=_positive, default=10, metavar="N", help="runs before them (default 10)")
    parser.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="threads that kernels may use (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the noise (default 0)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    try:
        engine = CompiledEngine(options.model, options.threads)
        picture, im_hw = _network_input(engine.manifest.input, options.image, options.seed)
        statistics = measure(engine, picture, im_hw, options.warmup, options.count)
    except (RuntimeRoomError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    report = _report(engine, statistics, options)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        print(f"{options.model}: {report['input']} on {report['processor']}, threads: {options.threads}, batch: 1")
        print(statistics_table({"run": statistics}))
        print(f"{report['throughput']:.1f} pictures a second")
    return 0


def measure(engine: CompiledEngine, picture: Picture, im_hw: tuple[int, int], warmup: int, count: int) -> Statistics:
    """Times `count` runs on a network input after `warmup` untimed ones."""
    for _ in range(warmup):
        engine.run(picture, im_hw)
    progress = Progress(count)
    seconds = []
    for index in range(count):
        progress.show(index, "timing")
        start = time.perf_counter()
        engine.run(picture, im_hw)
        seconds.append(time.perf_counter() - start)
    progress.clear()
    return Statistics.of(seconds)


def _network_input(geometry: InputGeometry, image: str | None, seed: int) -> tuple[Picture, tuple[int, int]]:
    if image is None:
        picture = np.random.default_rng(seed).integers(0, 256, (*geometry.source_hw, 3), dtype=np.uint8)
    else:
        picture = read_picture(image)
    placement = Placement.of((picture.shape[0], picture.shape[1]), geometry)
    return placement.network_input(picture), placement.valid_hw


def _report(engine: CompiledEngine, statistics: Statistics, options: argparse.Namespace) -> dict[str, Any]:
    """Every figure with what it depends on."""
    geometry = engine.manifest.input
    return {
        "model": options.model,
        "library_sha256": engine.manifest.library_sha256,
        "input": f"{geometry.height}x{geometry.width}",
        "image": options.image or f"noise, seed {options.seed}",
        "target": dict(engine.manifest.target),
        "processor": processor_name(),
        "threads": options.threads,
        "batch": 1,
        "milliseconds": statistics.to_json(),
        "throughput": round(1000 / statistics.mean, 2),
    }


def processor_name() -> str:
    """The processor's name as Linux tells it, else what Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, is {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
