"""`python -m train.evaluate`: COCO mAP and mIoU of a checkpoint, an exported or a compiled model, by the same code."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs import ConfigError, load
from configs.schema import IGNORE_LABEL, Config
from quant.errors import QuantError
from runtime.arguments import at_least
from runtime.errors import RuntimeRoomError
from runtime.predict import PicturePredictor, Prediction
from runtime.results import write_json
from train.data.errors import DataError
from train.data.samples import Either, Sample
from train.data.transforms import LEAST_KEPT, cut_boxes
from train.engines import load_predictor
from train.errors import TrainError
from train.metrics import BoxMetric, PixelMetric
from train.report import Worst, write_report
from train.validation import validation_sets

DESCRIPTION = """Metrics of a model on its validation data, in percent: COCO mAP (IoU 0.50:0.95, at most 100 boxes) and
mAP at IoU 0.50 for detection tasks, mean IoU for segmentation tasks, each with its values per class. Boxes are compared
in the original picture's pixels, masks over all of them; what the network was not shown of a picture does not count.
Precision-recall curves, confusion matrices and the pictures that went worst go to the folder --out."""

TABLE_WIDTH = 120  # for a file or a pipe, where no terminal says how wide it is
COLUMNS = {"map": "mAP", "map50": "mAP50", "miou": "mIoU", "line_f1": "line F1", "line_iou": "line IoU"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=DESCRIPTION)
    parser.add_argument("--config", type=Path, required=True, metavar="C", help="the config it was trained with")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint (.params), -export-last.onnx or .so")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set on disk (default: the config's val data)")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N pictures of every data set")
    parser.add_argument("--json", type=Path, metavar="F", help="write the metrics to this file, too")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="of the pictures (default: evaluate-<model>, beside it)"
    )
    options = parser.parse_args(arguments)
    out = options.out or options.model.parent / f"evaluate-{options.model.stem}"
    try:
        config = load(options.config)
        predictor = load_predictor(options.model, config)
        worst = Worst(config)
        metrics = measure(predictor, config, data=options.data, limit=options.limit, progress=True, worst=worst)
        result = results_of(metrics)
        print_table(result, options.model)
        write_report(out, config, metrics, worst)
        if options.json:
            write_json(options.json, result)
    except (TrainError, ConfigError, DataError, RuntimeRoomError, QuantError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"curves, confusion matrices and the worst pictures: {out}")
    return 0


def evaluate(
    predictor: PicturePredictor,
    config: Config,
    *,
    data: Path | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """{"tasks": {name: {"map", "map50", "per_class"} or {"miou", "per_class"}}}, in percent; None: nothing is labelled.

    `data` is a folder in the project's format, to be used in place of the config's validation data.
    """
    return results_of(measure(predictor, config, data=data, limit=limit, progress=progress))


def results_of(metrics: Mapping[str, BoxMetric | PixelMetric]) -> dict[str, Any]:
    """See `evaluate`."""
    return {"tasks": {name: metric.result() for name, metric in metrics.items()}}


def measure(
    predictor: PicturePredictor,
    config: Config,
    *,
    data: Path | None,
    limit: int | None,
    progress: bool,
    worst: Worst | None = None,
) -> dict[str, BoxMetric | PixelMetric]:
    """The metric of every task after all pictures, of which `worst` keeps some."""
    metrics = {task.name: metric_of(task) for task in config.tasks}
    for names, pictures in validation_sets(config, data=data, limit=limit):
        shown: Iterable[Sample] = pictures
        if progress:
            shown = track(pictures, description=", ".join(names), console=Console(stderr=True), total=len(pictures))
        for labelled in shown:
            prediction = predictor(labelled.picture)
            window = predictor.window(prediction.picture_hw)
            for name in names:
                _add(metrics[name], name, labelled, prediction, window, pictures.either.get(name))
            if worst is not None:
                worst.add(labelled, prediction, names, pictures.either)
    return metrics


def metric_of(task: Any) -> BoxMetric | PixelMetric:
    """The task's, of no picture yet."""
    classes = [entry.name for entry in task.classes]
    if task.kind == "detection":
        return BoxMetric(classes)
    return PixelMetric(classes, IGNORE_LABEL, lines=task.metric == "lines")


def _add(
    metric: BoxMetric | PixelMetric,
    name: str,
    labelled: Sample,
    prediction: Prediction,
    window: tuple[float, float, float, float],
    either: Either | None,
) -> None:
    """One task of one picture. Only what lies in `window` was shown to the network: pixels and boxes outside it, or out
    of it for the most part, do not count.
    """
    if isinstance(metric, PixelMetric):
        if name in labelled.masks:
            metric.add(labelled.masks[name], prediction.masks[name], either)
        return
    if name in labelled.boxes:
        truth = labelled.boxes[name]
        _, shown = cut_boxes(truth.boxes, window)
        found = [detection for detection in prediction.detections if detection.task == name]
        metric.add(truth.boxes, truth.classes, truth.ignore | (shown < LEAST_KEPT), *_arrays(found), truth.unlabelled)


def _arrays(found: Sequence[Any]) -> tuple[Any, Any, Any]:
    boxes = np.array([detection.box for detection in found], np.float64).reshape(-1, 4)
    return boxes, np.array([d.class_index for d in found], np.int64), np.array([d.score for d in found], np.float64)


def print_table(result: dict[str, Any], model: Path) -> None:
    """The metrics for people, task by task and class by class."""
    table = Table(title=f"{model} (percent)")
    for column in ("task", "class", *COLUMNS.values()):
        table.add_column(column, justify="left" if column in ("task", "class") else "right")
    for name, task in result["tasks"].items():
        table.add_row(name, "all", *_cells(task), style="bold")
        for class_name, values in task["per_class"].items():
            table.add_row("", class_name, *_cells(values))
        table.add_section()
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)


def _cells(values: dict[str, Any]) -> list[str]:
    return ["" if values.get(key) is None else f"{values[key]:.2f}" for key in COLUMNS]


if __name__ == "__main__":
    sys.exit(main())
