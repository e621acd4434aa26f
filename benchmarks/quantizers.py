"""Two ways to choose the shifts of activations, trained from the same float model on the same data for as long.

    python benchmarks/quantizers.py --run runs/accuracy [--out DIR] [--json F]

RUN is a finished run of benchmarks/accuracy.py, whose step 0 is where all begin. `observed`: moving averages of the
squared error. `learned`: thresholds trained with the weights. Both go through steps 1 and 2 of configs/camvid.
`static`: no training at all, the calibration of `compile.build --source with-bn` on training pictures. Interrupted, it
goes on where it stopped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from accuracy import CONFIG, DATA, judged, measure
from phases import REPOSITORY, command
from rich.console import Console
from rich.table import Table

from configs import Config, load
from train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from train.run import Run
from train.session import Request, train_step
from train.steps import prepare

CALIBRATION = 32  # pictures
FIRST = "with-bn-last-0000.params"


def config_of(shifts: Literal["observed", "learned"]) -> Config:
    """configs/camvid with that way."""
    config = load(CONFIG)
    return config.model_copy(update={"env": config.env.model_copy(update={"shifts": shifts})})


def trained(shifts: Literal["observed", "learned"], first: Checkpoint, folder: Path) -> Path:
    """Step 2's export."""
    config, run = config_of(shifts), Run(folder)
    if not run.last(0).is_file():
        names = prepare(config, 0, start=None, before=None).network.state_dict()
        missing = {name: torch.zeros(()) for name in names.keys() - first.model.keys()}  # thresholds, not begun yet
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(run.last(0), Checkpoint({**first.model, **missing}, first.progress))
    for step in (1, 2):
        train_step(Request(config, step, folder, pipeline_test=False, ctx="cpu", resume=True, seed=config.env.seed))
    return run.export(2)


def calibrated(run: Path, folder: Path) -> Path:
    """The model that calibration alone makes of step 0."""
    library = folder / "int-inference-export-last.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        name = "with-bn-export-last.onnx"
        (folder / name).write_bytes((run / name).read_bytes())
        pictures = folder / "calibration"
        pictures.mkdir(exist_ok=True)
        every = sorted((DATA / "camvid/train/images").iterdir()) + sorted((DATA / "scenes/train/images").iterdir())
        for picture in every[:: max(1, len(every) // CALIBRATION)]:
            (pictures / picture.name).write_bytes(picture.read_bytes())
        options = ("--config", CONFIG, "--out", folder, "--source", "with-bn", "--calib-images", pictures)
        command("compile.build", *options)
    return library


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=REPOSITORY / "runs/accuracy", help="of benchmarks/accuracy.py")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs/quantizers", metavar="DIR", help="to work in")
    parser.add_argument("--json", type=Path, metavar="F", help="write the metrics to this file, too")
    options = parser.parse_args(arguments)
    if not (options.run / FIRST).is_file():
        parser.error(f"{options.run / FIRST}: no such file; run benchmarks/accuracy.py first")
    first, config = load_checkpoint(options.run / FIRST), load(CONFIG)
    models = {"float, step 0": options.run / "with-bn-export-last.onnx"}
    models["static"] = calibrated(options.run, options.out / "static")
    models["observed"] = trained("observed", first, options.out / "observed")
    models["learned"] = trained("learned", first, options.out / "learned")
    values = {name: judged(measure(model, config, None), config) for name, model in models.items()}
    table = Table("task, judged on", *values, title="mIoU or mAP50, percent")
    for row in next(iter(values.values())):
        table.add_row(row, *(f"{entry[row]:.2f}" for entry in values.values()))
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps(values, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
