"""Bitroad against the engines that one would pick instead: the same network, in the same seconds, on the same cores.

    python benchmarks/engines.py --threads 1 --json F

The network is what `configs/4pe_resize/multitask.py` builds, with the weights of a pipeline test: speed does not depend
on them. Ours is measured with its post-processing, the others without any. OpenVINO's and ONNX Runtime's int8 forms are
made by their own quantizers from the float network with batch norms absorbed. Rounds of all engines take turns; between
them runs a micro benchmark of dot products in registers, the processor's peak. Needs the extra `benchmark`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import torch
from contenders import Image, Run
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from compile.build import STEP_3, build_integer_module, build_library
from compile.targets import find_target
from configs import Config, load
from configs.task import SceneSource
from quant.fake import Quantized
from runtime.artifact import load_artifact
from runtime.engine import CompiledEngine
from runtime.geometry import Placement
from runtime.layer_times import measure_peak
from runtime.processor import processor_name
from runtime.schema import InputGeometry, Reader
from train.checkpoint import load_checkpoint
from train.data.dataset import open_source
from train.export import export_onnx, network_image
from train.run import Run as RunFolder
from train.steps import prepare

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "configs/4pe_resize/multitask.py"
SCENES = SceneSource(kind="scenes", seed=6_000_000, count=32)  # what the others calibrate on, and the picture
ROUNDS, RUNS, PEAK_CALLS = 30, 4, 20
OURS = "bitroad"


@dataclass(frozen=True)
class Network:
    """The network at one export size, with all that an engine needs of it.

    `calibration` are pictures for the quantizers, the first of which is the one that is timed.
    """

    folder: Path
    im_hw: tuple[int, int]
    picture: NDArray[np.uint8]
    calibration: list[Image]
    float_network: nn.Module

    @property
    def float_onnx(self) -> Path:
        """Batch norms absorbed, nothing quantized."""
        return self.folder / "float.onnx"

    @property
    def step_2(self) -> Path:
        """With Q/DQ."""
        return self.folder / "fusion-bn-c2-export-last.onnx"

    @property
    def library(self) -> Path:
        """The compiled model."""
        return self.folder / f"{STEP_3}.so"


def trained_run(folder: Path) -> Path:
    """The checkpoint of step 2 of a pipeline test, made if it is not there."""
    checkpoint = RunFolder(folder).last(2)
    if not checkpoint.is_file():
        script = REPOSITORY / "tools/quanti_training_2step_fusion_bn.sh"
        command = ["bash", str(script), "--config", str(CONFIG), "--pipeline-test", "--out", str(folder)]
        subprocess.run(command, cwd=REPOSITORY, check=True)
    return checkpoint


def at_size(config: Config, hw: tuple[int, int]) -> Config:
    """The config for another export size."""
    shape = config.int_inference_export_input_shape
    sized = shape.model_copy(update={"image": (1, *hw, 3)})
    return config.model_copy(update={"int_inference_export_input_shape": sized})


def make_network(config: Config, checkpoint: Path, folder: Path, console: Console) -> Network:
    """Exports and builds the network for the config's size."""
    folder.mkdir(parents=True, exist_ok=True)
    geometry = InputGeometry.from_json(Reader(config.deployment()["input"], "config"))
    placements = []
    for sample in open_source(SCENES):
        placement = Placement.of(sample.picture.shape[:2], geometry)
        placements.append((placement.valid_hw, placement.network_input(sample.picture)))
    floating = export_form(config, checkpoint, quantized=False)
    network = Network(folder, *placements[0], [network_image(picture) for _, picture in placements], floating)
    export_onnx(floating, config.input_hw, config.output_names, network.float_onnx)
    export_onnx(export_form(config, checkpoint, quantized=True), config.input_hw, config.output_names, network.step_2)
    build_integer_module(config, folder, network.step_2, None)
    build_library(folder, find_target("native"), None, console)
    return network


def export_form(config: Config, checkpoint: Path, *, quantized: bool) -> nn.Module:
    """Step 2's network as it is exported, or the same without quantization."""
    prepared = prepare(config, 2, start=load_checkpoint(checkpoint), before=None)
    if not quantized:
        for module in prepared.network.modules():
            if isinstance(module, Quantized):
                module.quantized = False
    return prepared.export_model()


def contenders_for(network: Network, threads: int, only_ours: bool) -> dict[str, Run]:
    """All engines by name, ready to run."""
    engines = {OURS: contenders.bitroad(network.library, network.picture, network.im_hw, threads)}
    if only_ours:
        return engines
    image = network.calibration[0]
    engines["openvino int8"] = contenders.openvino(network.float_onnx, image, threads, network.calibration)
    engines["openvino f32"] = contenders.openvino(network.float_onnx, image, threads, None)
    int8_forms = [
        network.step_2,
        *contenders.quantize_by_onnxruntime(network.float_onnx, network.folder, network.calibration[:8]),
    ]
    variants = [contenders.onnxruntime_engine(path, image, threads) for path in int8_forms]
    engines["onnxruntime int8"] = min(variants, key=lambda run: min(timed(run, 5)))
    engines["onnxruntime f32"] = contenders.onnxruntime_engine(network.float_onnx, image, threads)
    torch.set_num_threads(threads)
    engines["torch eager"] = contenders.torch_engine(network.float_network, image, compiled=False)
    engines["torch compiled"] = contenders.torch_engine(network.float_network, image, compiled=True)
    return engines


def timed(run: Run, count: int) -> list[float]:
    """Seconds of `count` runs after one that is not counted: caches and threads belong to the engine then."""
    run()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def compare(engines: dict[str, Run], library: Path, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of every engine's runs, and the processor's peak, multiply-adds a second of one core."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    meter, peak = CompiledEngine(library, threads=None), 0.0
    order = np.random.default_rng(0)
    for _ in track(range(rounds), description="rounds"):
        for name in order.permutation(list(engines)):
            seconds[name] += timed(engines[name], RUNS)
            peak = max(peak, measure_peak(meter, PEAK_CALLS))
    return seconds, peak


def multiply_adds(library: Path) -> int:
    """Of one picture: the network's own."""
    return sum(layer["macs"] for layer in load_artifact(library).layers)


def summary(
    seconds: dict[str, list[float]], peak: float, network: Network, options: argparse.Namespace
) -> dict[str, Any]:
    """The comparison as JSON."""
    milliseconds = {name: np.array(values) * 1e3 for name, values in seconds.items()}
    best = {name: float(values.min()) for name, values in milliseconds.items()}
    macs = multiply_adds(network.library)
    _, height, width, _ = network.picture.shape
    return {
        "engines": {
            name: {"min_ms": round(best[name], 3), "median_ms": round(float(np.median(values)), 3)}
            for name, values in milliseconds.items()
        },
        "ratio": {name: round(best[OURS] / best[name], 3) for name in best if name != OURS},
        "peak_share": round(macs / (best[OURS] / 1e3) / (peak * options.threads), 3),
        "gmacs": round(macs / best[OURS] / 1e6, 1),
        "peak_gmacs": round(peak / 1e9, 1),
        "threads": options.threads,
        "input": f"{height}x{width}",
        "batch": 1,
        "device": processor_name(),
        "runs": ROUNDS * RUNS,
    }


def table_of(result: dict[str, Any]) -> Table:
    """The comparison for people."""
    table = Table(title=f"{result['input']}, batch 1, {result['threads']} thread(s), {result['device']}")
    for title in ("engine", "min ms", "median ms", "ours / theirs"):
        table.add_column(title, justify="left" if title == "engine" else "right")
    for name, row in result["engines"].items():
        ratio = f"{result['ratio'][name]:.3f}" if name in result["ratio"] else ""
        table.add_row(name, f"{row['min_ms']:.2f}", f"{row['median_ms']:.2f}", ratio)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every engine (default 1)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the result to this file")
    parser.add_argument("--size", metavar="HxW", help="an export size of the config (default: the config's own)")
    parser.add_argument("--ours", action="store_true", help="measure no other engine")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs/engines", metavar="DIR", help="working folder")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    checkpoint = trained_run(options.out)
    config = load(CONFIG)
    if options.size:
        height, width = (int(side) for side in options.size.split("x"))
        config = at_size(config, (height, width))
    network = make_network(config, checkpoint, options.out / "x".join(map(str, config.input_hw)), console)
    engines = contenders_for(network, options.threads, options.ours)
    seconds, peak = compare(engines, network.library, ROUNDS)
    result = summary(seconds, peak, network, options)
    console.print(table_of(result))
    console.print(
        f"{result['gmacs']} GMAC/s, {result['peak_share']:.1%} of the peak, {options.threads} x {result['peak_gmacs']}"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
