"""`python -m runtime.bench`: how fast a compiled model is on this machine."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.arguments import at_least
from runtime.engine import CompiledEngine
from runtime.errors import ImageError, RuntimeRoomError
from runtime.geometry import Placement
from runtime.image import Picture, find_inputs, read_picture
from runtime.layer_times import LayerTime, layer_times
from runtime.processor import processor_name
from runtime.schema import InputGeometry
from runtime.stages import Stages, measure_stages
from runtime.timing import Progress, Statistics, statistics_table

LAYER_RUNS = 30
DESCRIPTION = """Time a compiled model on one picture, from network input in memory to all outputs in memory: every head
map, boxes and masks. The time depends on the picture a little (more boxes, more work). With --image also the way there
and back, part by part on one thread, and a stream of pictures on all threads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtime.bench", description=DESCRIPTION)
    parser.add_argument(
        "--model", required=True, metavar="SO", help="the .so that compile.build wrote, its .json beside it"
    )
    parser.add_argument("--image", metavar="FILE|DIR", help="a picture, or a folder of them (default: noise)")
    parser.add_argument("--count", type=at_least(1), default=200, metavar="N", help="timed runs (default 200)")
    parser.add_argument("--warmup", type=at_least(1), default=10, metavar="N", help="runs before them (default 10)")
    parser.add_argument(
        "--threads", type=at_least(1), default=1, metavar="N", help="threads that kernels may use (default 1)"
    )
    parser.add_argument("--layers", action="store_true", help="the time of every layer, too, and its share of the peak")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="seed of the noise (default 0)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    try:
        engine = CompiledEngine(options.model, options.threads)
        files = _pictures(options.image)
        picture, im_hw = _network_input(engine.manifest.input, files, options.seed)
        statistics = measure(engine, picture, im_hw, options.warmup, options.count)
        layers = layer_times(engine, picture, im_hw, LAYER_RUNS) if options.layers else []
        stages = measure_stages(engine, files, options.count, options.threads) if files else None
    except (RuntimeRoomError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    report = _report(engine, statistics, options)
    if stages:
        report["stages"] = stages.to_json()
    if options.layers:
        report["layers"] = [layer.to_json() for layer in layers]
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        print(f"{options.model}: {report['input']} on {report['processor']}, threads: {options.threads}, batch: 1")
        print(statistics_table({"run": statistics}))
        print(f"{report['throughput']:.1f} pictures a second")
        if stages:
            print(stages_text(stages))
        if layers:
            print(layer_table(layers))
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


def stages_text(stages: Stages) -> str:
    """The parts, and the stream."""
    return (
        f"\nfrom file to boxes, one thread:\n{statistics_table(stages.parts)}\n"
        f"stream, {stages.workers} at a time: {stages.stream:.1f} pictures a second, "
        f"{stages.stream / stages.bound:.0%} of {stages.workers} / (decode + pre + inference + post)\n"
    )


def layer_table(layers: Sequence[LayerTime]) -> str:
    """The layers in the order of execution, best times."""
    lines = [f"{'ms':>9}{'GMAC/s':>9}{'% of peak':>11}  layer ({layers[0].peak / 1e9:.0f} GMAC/s are the peak)"]
    for entry in layers:
        row = entry.to_json()
        rate = f"{row['gmacs']:>9.1f}{row['peak_share']:>11.1f}" if entry.macs else " " * 20
        lines.append(f"{row['milliseconds']:>9.4f}{rate}  {entry.name}")
    return "\n".join(lines)


def _pictures(image: str | None) -> list[Path]:
    """The picture of that name, or those of the folder. ImageError if there is none."""
    if image is None:
        return []
    pictures, _, complaints = find_inputs([image])
    if not pictures:
        raise ImageError(complaints[0][1] if complaints else f"{image}: a video; name a picture or a folder of them")
    return pictures


def _network_input(geometry: InputGeometry, files: list[Path], seed: int) -> tuple[Picture, tuple[int, int]]:
    """Of the first picture, or noise."""
    if files:
        picture = read_picture(files[0])
    else:
        picture = np.random.default_rng(seed).integers(0, 256, (*geometry.source_hw, 3), dtype=np.uint8)
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


if __name__ == "__main__":
    sys.exit(main())
