"""Bitroad against the engines that one would pick instead: the same network, in the same seconds, on the same cores.

    python benchmarks/engines.py --threads 1 --json F     one size, one number of threads
    python benchmarks/engines.py --all                    all sizes on 1 and 2 threads, written to docs/benchmarks.md

Ours is measured with its post-processing, the others without any. OpenVINO's and ONNX Runtime's int8 forms are made by
their own quantizers from the float network with batch norms absorbed. Rounds of all engines take turns; between them
runs a micro benchmark of dot products in registers, the processor's peak. With several threads there is a second part:
a stream, as many pictures at a time as threads, each on one. After `make setup` it needs the packages of the extra
`benchmark`: `.venv/bin/pip install -e '.[benchmark]'`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import contenders
import engines_report
import numpy as np
import torch
from contenders import Contender, Run, timed
from engines_report import OURS, Result
from exported_network import CONFIG, REPOSITORY, Network, at_size, make_network, trained_run
from rich.console import Console
from rich.progress import track

from configs import Config, load
from runtime.engine import CompiledEngine, set_threads
from runtime.layer_times import measure_peak

SIZES = ((448, 960), (512, 960), (512, 1140))  # the export sizes of configs/4pe_resize
ROUNDS, RUNS, PEAK_CALLS = 25, 4, 20
STREAM_ROUNDS, STREAM_RUNS = 6, 12  # runs of each thread in a round
PAUSE = 0.25  # seconds, in which the threads of the engine before fall asleep: some spin a while first


def contenders_for(network: Network, only_ours: bool) -> dict[str, Contender]:
    """All engines by name."""
    ours = contenders.bitroad(network.library, network.picture, network.im_hw)
    if only_ours:
        return {OURS: ours}
    image, folder = network.calibration[0], network.folder
    quantized = contenders.quantize_by_onnxruntime(network.float_onnx, folder, network.calibration[:8])
    return {
        OURS: ours,
        "openvino int8": contenders.openvino(network.float_onnx, image, network.calibration),
        "openvino f32": contenders.openvino(network.float_onnx, image, None),
        "onnxruntime int8": contenders.onnxruntime([network.step_2, *quantized], image),
        "onnxruntime f32": contenders.onnxruntime([network.float_onnx], image),
        "torch eager": contenders.pytorch(network.float_network, image, compiled=False),
        "torch compiled": contenders.pytorch(network.float_network, image, compiled=True),
    }


def take_turns(runs: dict[str, list[Run]], library: Path, threads: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of every engine's runs, and the processor's peak, multiply-adds a second of one core."""
    set_threads(threads)
    torch.set_num_threads(threads)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    meter, peak = CompiledEngine(library), 0.0
    order = np.random.default_rng(0)
    for _ in track(range(ROUNDS), description=f"{threads} thread(s)"):
        for name in order.permutation(list(runs)):
            time.sleep(PAUSE)
            peak = max(peak, measure_peak(meter, PEAK_CALLS))
            seconds[name] += timed(runs[name][0], RUNS)
    return seconds, peak


def stream(runs: dict[str, list[Run]]) -> dict[str, float]:
    """Pictures a second, the best of the rounds, of every engine with all its runs at work."""
    set_threads(1)
    torch.set_num_threads(1)
    best: dict[str, float] = dict.fromkeys(runs, 0.0)
    for _ in track(range(STREAM_ROUNDS), description="stream"):
        for name, copies in runs.items():
            time.sleep(PAUSE)
            with ThreadPoolExecutor(len(copies)) as pool:
                list(pool.map(lambda run: run(), copies))
                start = time.perf_counter()
                list(pool.map(lambda run: [run() for _ in range(STREAM_RUNS)], copies))
                best[name] = max(best[name], len(copies) * STREAM_RUNS / (time.perf_counter() - start))
    return best


def compare(network: Network, engines: dict[str, Contender], threads: int) -> Result:
    """All engines on one number of threads."""
    seconds, peak = take_turns({name: make(threads, 1) for name, make in engines.items()}, network.library, threads)
    pictures = stream({name: make(1, threads) for name, make in engines.items()}) if threads > 1 else {}
    return engines_report.summary(seconds, pictures, peak, network, threads)


def sized(config: Config, text: str | None) -> Config:
    """The config for the size that somebody typed, or its own."""
    return at_size(config, tuple(int(side) for side in text.split("x"))) if text else config  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every engine (default 1)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the result to this file")
    parser.add_argument("--size", metavar="HxW", help="an export size of the config (default: the config's own)")
    parser.add_argument("--ours", action="store_true", help="measure no other engine")
    parser.add_argument("--all", action="store_true", help="all sizes on 1 and 2 threads; writes docs/benchmarks.md")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs/engines", metavar="DIR", help="working folder")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    checkpoint, config = trained_run(options.out), load(CONFIG)
    configs = [at_size(config, hw) for hw in SIZES] if options.all else [sized(config, options.size)]
    results = []
    for entry in configs:
        network = make_network(entry, checkpoint, options.out / "x".join(map(str, entry.input_hw)), console)
        engines = contenders_for(network, options.ours)
        for threads in (1, 2) if options.all else (options.threads,):
            results.append(compare(network, engines, threads))
            console.print(engines_report.table_of(results[-1]))
            console.print(engines_report.speed_of(results[-1]))
    if options.json:
        data = results if options.all else results[0]
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.all:
        engines_report.write_page(results, REPOSITORY / "docs/benchmarks.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
