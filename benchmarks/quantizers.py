"""Two ways to choose the shifts of activations, trained from the same float weights on the same data for as long.

    python benchmarks/quantizers.py --run runs/accuracy [--out DIR] [--json F]

RUN is a finished run of benchmarks/accuracy.py; all begin with the float weights from which its step 0 quantizes.
`observed`: moving averages of the squared error. `learned`: thresholds trained with the weights. Both train ITERATIONS
with batch norms, then steps 1 and 2 of configs/camvid. `static`: no quantization training at all, the calibration of
`compile.build --source with-bn` on training pictures, of the run's float model, which is told beside it. Interrupted,
it goes on where it stopped.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from accuracy import CONFIG, DATA, judged, measure_all
from phases import REPOSITORY, command, leave_with
from rich.console import Console
from rich.table import Table

from configs import Config, load
from train.run import Run
from train.session import Request, train_step

CALIBRATION = 32  # pictures
ITERATIONS, RATE = 250, 1e-3
FLOAT_MODEL = "with-bn-export-last.onnx"


def config_of(shifts: Literal["observed", "learned"]) -> Config:
    """configs/camvid with that way, its step 0 quantized from the beginning."""
    config = load(CONFIG)
    changes = {"epochs": 1, "iterations_per_epoch": ITERATIONS, "learning_rate": RATE, "quant_delay": 0.0}
    solver = (config.solver[0].model_copy(update=changes), *config.solver[1:])
    return config.model_copy(update={"solver": solver, "env": config.env.model_copy(update={"shifts": shifts})})


def trained(shifts: Literal["observed", "learned"], start: Path, folder: Path) -> Path:
    """Step 2's export, of a training that begins with the weights of the checkpoint `start`."""
    config = config_of(shifts)
    for step in range(3):
        init = None if step else start
        train_step(
            Request(config, step, folder, pipeline_test=False, ctx="cpu", resume=True, seed=config.env.seed, init=init)
        )
    return Run(folder).export(2)


def calibrated(model: Path, folder: Path) -> Path:
    """What calibration alone makes of a float model."""
    library = folder / "int-inference-export-last.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FLOAT_MODEL).write_bytes(model.read_bytes())
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
    start, model, config = Run(options.run).floating(0), options.run / "float/2" / FLOAT_MODEL, load(CONFIG)
    for needed in (start, model):
        if not needed.is_file():
            parser.error(f"{needed}: no such file; run benchmarks/accuracy.py first")
    models = {"float": model, "static": calibrated(model, options.out / "static")}
    models["observed"] = trained("observed", start, options.out / "observed")
    models["learned"] = trained("learned", start, options.out / "learned")
    values = {name: judged(results, config) for name, results in measure_all(models, config, None).items()}
    table = Table("task, judged on", *values, title="mIoU or mAP50, percent")
    for row in next(iter(values.values())):
        table.add_row(row, *(f"{entry[row]:.2f}" for entry in values.values()))
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps(values, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    leave_with(main)
