"""Trains six tasks on real and embedded data, from nothing to the compiled model, and measures what int8 costs.

    python benchmarks/accuracy.py [--night] [--json F]

Converts CamVid and comma10k (beneath BITROAD_DATA, by default ../shared/data) into data/, trains steps 0 to 2 of
configs/camvid, trains on in float, too, from where step 0 begins to quantize, for the same iterations at the same
learning rates, builds step 3, checks that it equals step 2 on all validation frames, and measures all three by the same
code. Interrupted, it goes on where it stopped when called again with the same --out. Writes docs/accuracy.md and
docs/accuracy/ if all that it promises holds; exit code 1 if something does not. `--night` does the same with
configs/camvid/night.py, for docs/accuracy-night.md.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accuracy_report
from phases import REPOSITORY, Clock, command, headline, leave_with, train
from rich.console import Console
from rich.progress import track

from configs import Config, load
from configs.task import DetectionTask, FolderSource, SegmentationTask
from runtime.interruption import leave_to_the_parent
from train import evaluate
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.data import generate
from train.data.folder import ANNOTATIONS
from train.engines import load_predictor
from train.metrics import BoxMetric, PixelMetric
from train.run import Run, identity
from train.session import Request, train_step

CONFIG, NIGHT = (REPOSITORY / "configs/camvid" / name for name in ("multitask.py", "night.py"))
DATA = REPOSITORY / "data"
HELD_OUT = 3  # comma10k frames of the eleven here that are for validation
CAMVID, COMMA10K, SCENES, ALL = "CamVid", "comma10k", "scenes", "all"
SETS = {CAMVID: "camvid", COMMA10K: "comma10k", SCENES: "scenes"}  # folders in DATA
SCENES_FIRST = (SCENES, CAMVID, COMMA10K)  # to measure: what takes longest first
SCENE_SEEDS = {"train": (1_000_000, 1800), "val": (2_000_000, 2000)}  # the first one's, and how many
JUDGED_ON = (SCENES, ALL)  # whichever a task is validated on
TESTED = 2  # pictures of every set in a pipeline test
LIMIT, LEAST_MIOU, LEAST_GAIN = 100.0, 48.0, -0.5  # minutes, percent, points


def convert(source: Path) -> None:
    """CamVid and comma10k into DATA, what is there already left as it is."""
    for split in ("train", "val"):
        target = DATA / "camvid" / split
        if not (target / ANNOTATIONS).is_file():
            folders = ("--images", source / "camvid" / split, "--masks", source / "camvid" / f"{split}annot")
            command("train.data.convert", "camvid", *folders, target)
    pictures = sorted((source / "comma10k/imgs").iterdir())
    for split, chosen in {"train": pictures[:-HELD_OUT], "val": pictures[-HELD_OUT:]}.items():
        target = DATA / "comma10k" / split
        if (target / ANNOTATIONS).is_file():
            continue
        parts = {name: DATA / "comma10k/originals" / split / name for name in ("imgs", "masks")}
        for name, folder in parts.items():
            folder.mkdir(parents=True, exist_ok=True)
            for picture in chosen:
                shutil.copyfile(source / "comma10k" / name / picture.name, folder / picture.name)
        command("train.data.convert", "comma10k", "--images", parts["imgs"], "--masks", parts["masks"], target)


def draw_scenes() -> None:
    """Embedded scenes into DATA: drawing them takes longer than reading them. SystemExit if others are there."""
    for split, (seed, count) in SCENE_SEEDS.items():
        target = DATA / "scenes" / split
        if not (target / ANNOTATIONS).is_file():
            arguments = ("--out", target, "--seed", seed, "--count", count, "--source-hw", "360x480")
            command("train.data.generate", *arguments)
        images = json.loads((target / ANNOTATIONS).read_text())["images"]
        if (len(images), images[0]["file_name"]) != (count, f"{generate.stem_of(seed)}.png"):
            raise SystemExit(f"{target}: these are not the {count} scenes from seed {seed} on; delete the folder")


def train_in_float(config: Config, run: Path, clock: Clock, *, pipeline_test: bool) -> Path:
    """From where step 0 of `run` begins to quantize, the same iterations at the same learning rates in float; returns
    the export of what steps 0 to 2 would be.
    """
    before = None
    with clock.phase("float"):
        for number, settings in enumerate(config.solver[:3]):
            in_float = settings.model_copy(update={"mode": "kFloatTraining", "quant_delay": 0.0})
            here = config.model_copy(update={"solver": (in_float, *config.solver[1:])})
            of_step = Run(run / "float" / str(number))
            if number == 0:
                branch_off(Run(run).floating(0), of_step, here, pipeline_test=pipeline_test)
            seed = config.env.seed
            train_step(Request(here, 0, of_step.folder, pipeline_test, "cpu", resume=True, seed=seed, init=before))
            before = of_step.last(0)
    return of_step.export(0)


def branch_off(start: Path, run: Run, config: Config, *, pipeline_test: bool) -> None:
    """Makes the checkpoint `start` of another config one that step 0 of `config` is continued from in `run`."""
    if run.present(0) is None:
        checkpoint = load_checkpoint(start)
        mine = identity(config, pipeline_test=pipeline_test, seed=config.env.seed, processes=1)
        facts = {**checkpoint.progress, "identity": mine, "mode": config.solver[0].mode}
        run.folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(run.resume(0), Checkpoint(checkpoint.model, facts, checkpoint.training))


def measure_all(models: dict[str, Path], config: Config, limit: int | None) -> dict[str, Any]:
    """Metrics by model, validation set and task; as many models at once as there are processors."""
    jobs = [(folder, name, models[name], config, limit) for folder in SCENES_FIRST for name in models]
    measured: dict[str, dict[str, Any]] = {name: {} for name in models}
    processes = min(len(models), os.cpu_count() or 1)
    with multiprocessing.get_context("spawn").Pool(processes, leave_to_the_parent, (signal.SIGINT,)) as pool:
        done = pool.imap_unordered(measure, jobs)
        for name, folder, metrics in track(done, "models by sets", len(jobs), console=Console(stderr=True)):
            measured[name][folder] = metrics
    return {name: by_set(measured[name], config) for name in models}


def measure(job: tuple[str, str, Path, Config, int | None]) -> tuple[str, str, dict[str, BoxMetric | PixelMetric]]:
    """The name of a model, a set, and the metrics of the tasks that are validated on it."""
    folder, name, model, config, limit = job
    path = (DATA / SETS[folder] / "val").resolve()
    here = config.model_copy(update={"tasks": tuple(task for task in config.tasks if path in validated_on(task))})
    predictor = load_predictor(model, config)
    return name, folder, evaluate.measure(predictor, here, data=path, limit=limit, progress=False)


def by_set(measured: dict[str, dict[str, BoxMetric | PixelMetric]], config: Config) -> dict[str, Any]:
    """Results of one model by validation set and task, and those over ALL sets."""
    results: dict[str, Any] = {}
    together = {task.name: evaluate.metric_of(task) for task in config.tasks}
    for folder in SETS:
        tasks = evaluate.results_of(measured[folder])["tasks"]
        results[folder] = {task: value for task, value in tasks.items() if headline(value) is not None}
        for task, metric in measured[folder].items():
            together[task].extend(metric)
    results[ALL] = evaluate.results_of(together)["tasks"]
    return results


def validated_on(task: DetectionTask | SegmentationTask) -> list[Path]:
    """The folders of its validation data."""
    return [Path(source.path) for source in task.data.val if isinstance(source, FolderSource)]


def judged(results: dict[str, Any], config: Config) -> dict[str, float | None]:
    """The numbers that the tasks of a model are judged by, under the names of task and set."""
    pairs = [(task.name, name) for task in config.tasks for name in JUDGED_ON if task.name in results[name]]
    return {f"{task}, {name}": headline(results[name][task]) for task, name in pairs}


def verdict(results: dict[str, Any], clock: Clock, config: Config, *, limit: float | None) -> list[str]:
    """What does not hold; empty where all is well."""
    problems = [] if results["step 2"] == results["step 3"] else ["step 3's metrics differ from step 2's"]
    if limit is not None and clock.minutes > limit:
        problems.append(f"it took {clock.minutes:.0f} minutes, over {limit:.0f}")
    miou = results["step 3"][CAMVID]["seg_default"]["miou"]
    if miou < LEAST_MIOU:
        problems.append(f"CamVid: the compiled model's mIoU is {miou:.2f}, under {LEAST_MIOU}")
    quantized, unquantized = (judged(results[model], config) for model in ("step 3", "float"))
    for task, value in quantized.items():
        if value - unquantized[task] < LEAST_GAIN:
            problems.append(f"{task}: int8 is {unquantized[task] - value:.2f} points below float")
    return problems


def all_phases(source: Path, config: Config, run: Path, clock: Clock, *, pipeline_test: bool) -> dict[str, Any]:
    """From data to metrics, by model; what was finished in an earlier call is not done again."""
    file = Path(config.file)
    with clock.phase("data"):
        convert(source)
        draw_scenes()
    train(file, run, clock, *(("--pipeline-test",) if pipeline_test else ()))
    models = {
        "float": train_in_float(config, run, clock, pipeline_test=pipeline_test),
        "step 2": run / "fusion-bn-c2-export-last.onnx",
        "step 3": run / "int-inference-export-last.so",
    }
    with clock.phase("build and parity"):
        command("compile.build", "--config", file, "--out", run)
        command("compile.verify", "--config", file, "--out", run, "--images", DATA / "camvid/val/images")
    with clock.phase("metrics"):
        for name, model in models.items():
            print(f"{name}: {model}", flush=True)
        return measure_all(models, config, TESTED if pipeline_test else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--night", action="store_true", help="train for longer; writes docs/accuracy-night.md")
    parser.add_argument("--out", type=Path, metavar="RUN", help="the run's folder (default: runs/accuracy)")
    parser.add_argument("--pipeline-test", action="store_true", help="all phases with few pictures; writes no page")
    parser.add_argument("--json", type=Path, metavar="F", help="write the metrics to this file, too")
    options = parser.parse_args(arguments)
    name = "accuracy-night" if options.night else "accuracy"
    folder = f"{name}-test" if options.pipeline_test else name
    file, run = NIGHT if options.night else CONFIG, (options.out or REPOSITORY / "runs" / folder).resolve()
    source = Path(os.environ.get("BITROAD_DATA", REPOSITORY.parent / "shared/data"))
    if not (source / "camvid").is_dir() or not (source / "comma10k").is_dir():
        parser.error(f"{source}: no camvid and comma10k there; set BITROAD_DATA to the folder that holds them")
    clock, config = Clock(run), load(file)
    results = all_phases(source, config, run, clock, pipeline_test=options.pipeline_test)
    if options.json:
        options.json.write_text(json.dumps({"seconds": clock.seconds, "models": results}, indent=1) + "\n")
    text = accuracy_report.page(config, results, clock, name, scenes=SCENE_SEEDS["val"][1])
    print(text)
    if options.pipeline_test:
        return 0 if results["step 2"] == results["step 3"] else 1
    problems = verdict(results, clock, config, limit=None if options.night else LIMIT)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if problems:
        return 1
    accuracy_report.write(text, run, REPOSITORY / "docs", name)
    return 0


if __name__ == "__main__":
    leave_with(main)
