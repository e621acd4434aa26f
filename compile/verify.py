"""`python -m compile.verify`: is the compiled model step 2, in every element of every output, on real pictures?

Step 2 is its ONNX in ONNX Runtime, with the numpy reference of the post-processing ops behind it. Step 3 is the `.so`
in the run's folder, loaded as `runtime.infer` loads it; its layers are read from a second instance of it, so that the
first runs, and is timed, without an instrument. Exit code: 0 if everything is equal, 1 if anything differs, 2 if the
question cannot be asked.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm  # noqa: F401  # the whole library, before the engine would load the runtime part alone
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from compile.build import STEP_3, changed_parameters, description
from compile.certify import certify
from compile.comparison import Comparison
from compile.errors import CompileError
from compile.files import load_pair, pair_of
from compile.package import card_of
from compile.recorder import LayerRecorder
from compile.witness import LEVELS, NOTE, Witness, post_processing
from configs import Config, ConfigError, load
from quant.errors import QuantError
from runtime.artifact import Manifest, file_sha256, load_artifact
from runtime.engine import CompiledEngine
from runtime.errors import ImageError, RuntimeRoomError
from runtime.geometry import Placement
from runtime.image import find_inputs, read_picture

COLUMNS = ("output", "elements", "mismatches", "largest difference", "first differing layer")
TABLE_WIDTH = 150  # for a file or a pipe, where no terminal says how wide it is
LAYER_POST_PROCESSING = "{task}.post_processing"


class Verifier:
    """Runs both sides on network inputs and keeps the tally and the times.

    `tasks` are the config's deployment entries, `layers` those of the integer module, as `describe_layers` gives them.
    """

    def __init__(
        self, library: Path, step_2: Path, tasks: list[dict[str, Any]], layers: list[dict[str, Any]], threads: int
    ) -> None:
        self.engine, self.watched = CompiledEngine(library, threads), CompiledEngine(library, threads)
        manifest = self.engine.manifest
        self.tasks = tasks
        self.shifts = {output.name: output.shift for output in manifest.outputs if output.shift is not None}
        self.layers = [layer for layer in layers if layer["tensor"] and layer["storage"]]
        self.recorder = LayerRecorder(layers)
        self.plain = Witness(step_2, threads=threads)
        check_interface(self.plain, manifest, step_2)
        self.detailed = Witness(step_2, tensors=[layer["tensor"] for layer in self.layers], threads=threads)
        self.levels = [Witness(step_2, level=level, threads=threads) for level in LEVELS if level != "all"]
        self.comparison = Comparison()
        self.seconds: dict[str, list[float]] = {"step 2": [], "step 3": []}
        self.threads = threads

    def compare(self, picture: NDArray[np.uint8], im_hw: tuple[int, int]) -> None:
        """One network input, uint8 (1, H, W, 3), of which `im_hw` is no padding."""
        started = time.perf_counter()
        step_2 = self.plain.run(picture)
        between = time.perf_counter()
        step_3 = self.engine.run(picture, im_hw)
        self.seconds["step 2"].append(between - started)
        self.seconds["step 3"].append(time.perf_counter() - between)
        with self.recorder.watching(self.watched.vm):
            self.watched.run(picture, im_hw)
        first = self.compare_layers(picture)
        if self.comparison.pictures == 0:
            self.check_levels(picture, step_2)
        self.compare_outputs(step_2, step_3, im_hw, first)
        self.comparison.pictures += 1

    def compare_layers(self, picture: NDArray[np.uint8]) -> str | None:
        """Every layer against its tensor in step 2; the name of the first that differs."""
        tensors = self.detailed.run(picture)
        first = None
        for layer in self.layers:
            value = self.recorder.values[layer["name"]]
            wrong = self.comparison.layer(layer["name"]).add(value, tensors[layer["tensor"]], layer["shift"])
            first = first or (layer["name"] if wrong else None)
        return first

    def compare_outputs(
        self, step_2: dict[str, Any], step_3: dict[str, Any], im_hw: tuple[int, int], first: str | None
    ) -> None:
        """Heads, boxes and masks; `first` is the first layer that differs on this picture."""
        heads = {name: np.ldexp(step_2[name], shift).astype(np.int8) for name, shift in self.shifts.items()}
        expected = step_2 | post_processing(heads, self.shifts, self.tasks, im_hw)
        for output in self.engine.manifest.outputs:
            tally = self.comparison.output(output.name)
            wrong = tally.add(step_3[output.name], expected[output.name], output.shift)
            if wrong and tally.first_differing_layer is None:
                # with every layer equal, the fault lies behind them
                tally.first_differing_layer = first or LAYER_POST_PROCESSING.format(task=output.task)

    def check_levels(self, picture: NDArray[np.uint8], reference: dict[str, Any]) -> None:
        """Step 2 must be well defined: the same bits at every optimization level of ONNX Runtime."""
        for level, witness in zip([level for level in LEVELS if level != "all"], self.levels, strict=True):
            for name, value in witness.run(picture).items():
                if not np.array_equal(value, reference[name]):
                    self.comparison.problems.append(
                        f"step 2 itself: {name} depends on the optimization level ({level})"
                    )


def check_interface(step_2: Witness, manifest: Manifest, path: Path) -> None:
    """Raises CompileError where step 2 is another network: its picture or its heads are not those of the `.so`."""
    heads = [output.name for output in manifest.outputs if output.role == "head"]
    shape = (1, 3, manifest.input.height, manifest.input.width)
    if step_2.input_shape != shape or step_2.output_names != heads:
        raise CompileError(
            f"{path}: takes {step_2.input_shape} and returns {', '.join(step_2.output_names)}; the .so was built from "
            f"{shape} and {', '.join(heads)}. Build it again"
        )


def check_tasks(config: Config, manifest: Manifest) -> None:
    """Raises CompileError where the config's tasks are not those of the `.so`, naming task and key."""
    ours, theirs = config.deployment()["tasks"], {task.name: task.to_json() for task in manifest.tasks}
    if [task["name"] for task in ours] != list(theirs):
        found = ", ".join(task["name"] for task in ours)
        raise CompileError(
            f"{config.file}: its tasks are {found}, those of the .so {', '.join(theirs)}; give the config it was built "
            "with, or build again"
        )
    for task in ours:
        for key, value in task.items():
            if value != theirs[task["name"]].get(key):
                raise CompileError(
                    f"{config.file}: {key} of task {task['name']} is not that of the .so; give the config it was built "
                    "with, or build again"
                )


@dataclass(frozen=True)
class Sources:
    """What the `.so` was made from: the layers of the integer module, and what does not fit in the run's folder."""

    layers: list[dict[str, Any]]
    problems: list[str]


def check_sources(run: Path, manifest: Manifest, step_2: Path) -> Sources:
    """Step 2's ONNX, the integer module and the manifest against each other, by hashes and by content."""
    prefix = run / STEP_3
    symbol, params = pair_of(prefix)
    problems = [
        f"{path}: its hash does not match the source of the .so; build again"
        for path in (step_2, symbol, params)
        if not path.is_file() or file_sha256(path) != manifest.sources.get(path.name)
    ]
    module, parameters = load_pair(prefix)
    card = card_of(module, str(symbol))
    stated = manifest.to_json()
    derived = Manifest.from_json(stated | description(module, parameters, card, certify(module, parameters))).to_json()
    wrong = [key for key, value in derived.items() if value != stated[key]]
    problems += [f"{prefix}.json: its {key} is not what {symbol.name} gives; build again" for key in wrong]
    changed = changed_parameters(card, parameters)
    problems += [f"{params}: {name}: its hash does not match the source {step_2.name}" for name in changed]
    return Sources(derived["layers"], problems)


def source_of(run: Path, manifest: Manifest) -> Path:
    """Step 2's ONNX that the `.so` was built from. Raises CompileError where it is not in the run's folder."""
    names = [name for name in manifest.sources if name.endswith(".onnx")]
    if len(names) != 1 or not (run / names[0]).is_file():
        raise CompileError(f"{run}: step 2's model {' '.join(names)} is not there; verify in the folder that was built")
    return run / names[0]


def network_inputs(paths: list[Path], verifier: Verifier, console: Console) -> None:
    """Compares on every picture; one that cannot be read counts as a problem."""
    for path in track(paths, description="comparing", console=console, transient=True):
        try:
            picture = read_picture(path)
        except ImageError as error:
            verifier.comparison.problems.append(str(error))
            continue
        placement = Placement.of(picture.shape[:2], verifier.engine.manifest.input)
        verifier.compare(placement.network_input(picture), placement.valid_hw)


def table_of(comparison: Comparison) -> Table:
    """A row for every output, then the sums over outputs and over layers."""
    table = Table()
    for title, justify in zip(COLUMNS, ("left", "right", "right", "right", "left"), strict=True):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for tally in comparison.outputs.values():
        table.add_row(
            tally.name,
            f"{tally.elements:,}",
            f"{tally.mismatches:,}",
            f"{tally.largest_difference:g}",
            tally.first_differing_layer or "",
        )
    total = sum(tally.elements for tally in comparison.outputs.values())
    largest = max((tally.largest_difference for tally in comparison.outputs.values()), default=0.0)
    table.add_section()
    table.add_row("all outputs", f"{total:,}", f"{comparison.mismatches:,}", f"{largest:g}", "")
    elements = sum(tally.elements for tally in comparison.layers.values())
    wrong = sum(tally.mismatches for tally in comparison.layers.values())
    differing = comparison.differing_layers
    table.add_row(
        f"{len(comparison.layers)} layers", f"{elements:,}", f"{wrong:,}", "", differing[0] if differing else ""
    )
    return table


def report(verifier: Verifier, console: Console) -> dict[str, Any]:
    """Prints table, latencies and verdict; returns them as JSON."""
    comparison = verifier.comparison
    milliseconds = {side: float(np.median(times) * 1e3) for side, times in verifier.seconds.items() if times}
    console.print(table_of(comparison))
    for side, value in milliseconds.items():
        console.print(
            f"{side}: {value:.1f} ms a picture (median of {comparison.pictures}, threads: {verifier.threads}, batch 1)"
        )
    console.print(f"step 2's witness: {NOTE}; its outputs compared at all optimization levels on the first picture")
    for problem in comparison.problems:
        console.print(f"problem: {problem}")
    if comparison.differing_layers:
        console.print(f"first differing layer: {comparison.differing_layers[0]}")
    verdict = "step 3 equals step 2" if comparison.equal else "step 3 is NOT step 2"
    console.print(f"{verdict}: {comparison.mismatches} mismatches on {comparison.pictures} pictures")
    return {
        "equal": comparison.equal,
        "mismatches": comparison.mismatches,
        "pictures": comparison.pictures,
        "outputs": [tally.to_json() for tally in comparison.outputs.values()],
        "layers": {"compared": len(comparison.layers), "differing": comparison.differing_layers},
        "problems": comparison.problems,
        "milliseconds": milliseconds,
        "threads": verifier.threads,
        "witness": NOTE,
        "target": dict(verifier.engine.manifest.target),
    }


def verify(options: argparse.Namespace, console: Console) -> bool:
    """What the command does; True where step 3 equals step 2. Raises CompileError where nothing can be compared."""
    config, library = load(options.config), options.out / f"{STEP_3}.so"
    manifest = load_artifact(library)
    check_tasks(config, manifest)
    step_2 = source_of(options.out, manifest)
    paths, _, complaints = find_inputs([options.images])
    if not paths:
        raise CompileError(
            "; ".join(message for _, message in complaints)
            or f"{options.images}: no pictures; give a folder of JPEG or PNG files"
        )
    sources = check_sources(options.out, manifest, step_2)
    verifier = Verifier(library, step_2, config.deployment()["tasks"], sources.layers, options.threads)
    verifier.comparison.problems += sources.problems
    network_inputs(paths, verifier, console)
    if not verifier.comparison.pictures:
        raise CompileError(f"{options.images}: nothing to compare on: {'; '.join(verifier.comparison.problems)}")
    result = report(verifier, console)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return verifier.comparison.equal


def main(arguments: list[str] | None = None) -> int:
    """Exit code: see the module's text; 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m compile.verify", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="the folder with step 2's ONNX and the .so"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="pictures to compare on")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of both sides (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here, too")
    options = parser.parse_args(arguments)
    try:
        width = None if sys.stdout.isatty() else TABLE_WIDTH
        return 0 if verify(options, Console(highlight=False, soft_wrap=True, width=width)) else 1
    except (CompileError, ConfigError, QuantError, RuntimeRoomError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was concluded", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
