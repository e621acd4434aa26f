"""Whether loading keeps training busy: the share of time that training waits for data, on 720x1280 JPEG pictures.

    python benchmarks/loading.py [--iterations N]

Draws embedded scenes of that size, writes them as JPEG in the project's format, and trains step 0 of
configs/4pe_resize/multitask.py on them in float, with the config's loading, threads and precision. Also how long one
loading process takes for a picture, by parts. Exit code 1 from 10 percent of waiting on.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
from phases import REPOSITORY
from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs import Config, load
from configs.task import FolderSource as FolderSettings
from configs.task import TaskData
from runtime.processor import processor_name
from train.data.classes import DETECTION_CLASSES
from train.data.dataset import Labelled
from train.data.folder_writer import FolderWriter
from train.data.samples import TaskLabels
from train.data.scenes import render_sample
from train.data.transforms import Augment, min_max_size, resize
from train.session import Request, train_step

CONFIG = REPOSITORY / "configs/4pe_resize/multitask.py"
HW, SCENES, QUALITY = (720, 1280), 400, 92
LIMIT = 10.0  # percent


def write_set(folder: Path) -> None:
    """The scenes with their labels; pictures as JPEG files."""
    writer = FolderWriter(folder, {task: TaskLabels(names) for task, names in DETECTION_CLASSES.items()})
    for index in track(range(SCENES), description="scenes", console=Console(stderr=True)):
        sample = render_sample(6_000_000 + index, HW)
        file = folder / "drawn.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), sample.picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        writer.add(f"{index:04d}", sample, file)
        file.unlink()
    writer.close()


def on_folder(config: Config, folder: Path, iterations: int) -> Config:
    """The config on that data, step 0 in float for a number of iterations."""
    source = FolderSettings(kind="folder", path=str(folder))
    data = TaskData(train=(source,), val=(source,))
    tasks = tuple(task.model_copy(update={"data": data}) for task in config.tasks)
    epochs = max(1, round(iterations * config.solver[0].batch_size / SCENES))
    first = config.solver[0].model_copy(update={"mode": "kFloatTraining", "epochs": epochs})
    return config.model_copy(update={"tasks": tasks, "solver": (first, *config.solver[1:])})


def parts(config: Config, folder: Path) -> dict[str, float]:
    """Median milliseconds of the parts of loading one picture."""
    tasks = {task.name: task for task in config.tasks}
    source = Labelled(FolderSettings(kind="folder", path=str(folder)), tasks)
    augment = Augment(config.common.crop_hw, config.common.augmentation)
    assert config.common.resize_hw is not None
    times: dict[str, list[float]] = {"reading, decoding": [], "resizing": [], "augmenting": []}
    cv2.setNumThreads(1)
    for index in range(40):
        began = time.perf_counter()
        sample = source[index]
        read = time.perf_counter()
        sample = resize(sample, min_max_size(HW, config.common.resize_hw))
        resized = time.perf_counter()
        augment(sample, index)
        done = time.perf_counter()
        for entry, seconds in zip(times.values(), (read - began, resized - read, done - resized), strict=True):
            entry.append(1e3 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=100, metavar="N", help="of training, about (default: 100)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder, run = Path(place) / "set", Path(place) / "run"
        write_set(folder)
        config = on_folder(load(CONFIG), folder, options.iterations)
        times = parts(config, folder)
        train_step(Request(config, 0, run, pipeline_test=False, ctx="cpu", resume=False, seed=1))
        with (run / "results.csv").open(newline="", encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1]
    common, waiting = config.common, float(last["waiting_percent"])
    table = Table("part", "ms a picture, one process", title=f"720x1280 JPEG, six tasks, {processor_name()}")
    for name, value in times.items():
        table.add_row(name, f"{value:.1f}")
    Console(width=100).print(table)
    print(
        f"training waited for data in {waiting:.1f}% of the time ({last['iteration']} iterations, load_threads "
        f"{common.load_threads}, threads {common.threads}, batch {config.solver[0].batch_size})"
    )
    return 0 if waiting < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
