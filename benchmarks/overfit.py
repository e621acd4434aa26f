"""Overfits a few embedded scenes with one task, and says how well: what is not learnt by heart cannot be learnt.

    python benchmarks/overfit.py --task det_person
    python benchmarks/overfit.py --task all --json overfit.json

Trains step 0 on four small scenes without augmentation and measures on the same ones: mAP at IoU 0.50, or the mean IoU
at the resolution of the network's own output. Exit code 1 below 90 percent.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs import Config, load
from configs.schema import IGNORE_LABEL, Augmentation, Geometry
from configs.task import SceneSource, TaskData
from train.data.dataset import open_source
from train.engines import load_predictor
from train.metrics import BoxMetric, PixelMetric
from train.session import Request, train_step

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "configs/4pe_resize/multitask.py"
GOAL = 90.0
HW = (256, 448)
SCENES = 4
SEED = 4_000_000
BATCHES_PER_EPOCH = 20
EPOCHS = 40


def overfit_config(task_name: str, epochs: int, count: int) -> Config:
    """The resize config with one task, on `count` scenes that are the network's input as they are."""
    config = load(CONFIG)
    scenes = SceneSource(kind="scenes", seed=SEED, count=count, sizes=(HW,))
    data = TaskData(train=(scenes,) * BATCHES_PER_EPOCH, val=(scenes,))
    task = config.task(task_name).model_copy(update={"data": data})
    common = config.common.model_copy(
        update={
            "variant": "crop",
            "resize_type": "none",
            "resize_hw": None,
            "crop_hw": HW,
            "augmentation": Augmentation(flip_probability=0.0),
            "geometries": (Geometry(name="overfit", source_hw=HW, pyramid_hw=HW, height=HW[0], width=HW[1]),),
            "load_threads": 1,
            "threads": 1,  # on pictures as small as these a second one waits more than it works
        }
    )
    changes = {"epochs": epochs, "batch_size": count, "learning_rate": 2e-3}
    solver = (config.solver[0].model_copy(update=changes), *config.solver[1:])
    shape = config.int_inference_export_input_shape.model_copy(
        update={"image": (1, *HW, 3), "im_hw": (1, 2) if task.kind == "detection" else None}
    )
    updates = {"tasks": (task,), "common": common, "solver": solver, "int_inference_export_input_shape": shape}
    return config.model_copy(update=updates)


def overfit(task_name: str, folder: Path, *, epochs: int, count: int) -> float:
    """Trains in `folder`; returns mAP50 or mIoU on the scenes, in percent."""
    config = overfit_config(task_name, epochs, count)
    train_step(Request(config, 0, folder, pipeline_test=False, ctx="cpu", resume=False, seed=1))
    return measure(config, folder / "with-bn-last-0000.params")


def measure(config: Config, checkpoint: Path) -> float:
    """mAP50 or mIoU of the checkpoint on the config's validation scenes, in percent."""
    (task,) = config.tasks
    predictor = load_predictor(checkpoint, config)
    classes = [entry.name for entry in task.classes]
    boxes, pixels = BoxMetric(classes), PixelMetric(classes, IGNORE_LABEL)
    (scenes,) = task.data.val
    source = open_source(scenes)
    for index in range(len(source)):
        sample = source[index]
        prediction = predictor(sample.picture)
        if task.kind == "segmentation":
            # the middle pixel of each cell: what the network was shown as the cell's class
            middle = np.s_[task.head.stride // 2 :: task.head.stride]
            pixels.add(sample.masks[task.name][middle, middle], prediction.masks[task.name][middle, middle])
        else:
            truth = sample.boxes[task.name]
            found = np.array([d.box for d in prediction.detections]).reshape(-1, 4)
            labels = np.array([d.class_index for d in prediction.detections], int)
            scores = np.array([d.score for d in prediction.detections])
            boxes.add(truth.boxes, truth.classes, truth.ignore, found, labels, scores)
    value = pixels.result()["miou"] if task.kind == "segmentation" else boxes.result()["map50"]
    return 0.0 if value is None else float(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    names = [task.name for task in load(CONFIG).tasks]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=[*names, "all"])
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, help=f"of {BATCHES_PER_EPOCH} iterations (default: {EPOCHS})"
    )
    parser.add_argument("--scenes", type=int, default=SCENES, help=f"how many (default: {SCENES})")
    parser.add_argument("--json", type=Path, metavar="F", help="write values and seconds to this file, too")
    options = parser.parse_args(arguments)
    results = {}
    for name in names if options.task == "all" else [options.task]:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            value = overfit(name, Path(folder), epochs=options.epochs, count=options.scenes)
        results[name] = {"metric": "mIoU" if name.startswith("seg") else "mAP50", "value": value}
        results[name]["seconds"] = round(time.monotonic() - began)
    for name, result in results.items():
        print(
            f"{name}: {result['metric']} {result['value']:.1f} % on the {options.scenes} scenes it was trained on "
            f"(goal: {GOAL:.0f} %), {result['seconds']} s"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result["value"] >= GOAL for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
