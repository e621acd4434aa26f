"""What a validation leaves beside its numbers, and what a step leaves to look at."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from configs import load
from runtime.predict import Detection, Prediction
from train.data.samples import Boxes, Sample
from train.evaluate import main
from train.report import Worst, box_f1

HW = (120, 200)


def boxes(*rows: Any, unlabelled: tuple[int, ...] = ()) -> Boxes:
    return Boxes.of([(*row, 0, False) if len(row) == 4 else row for row in rows], unlabelled)


def test_f1_of_boxes() -> None:
    truth = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10, 0, True))
    assert box_f1(truth, boxes((0, 0, 10, 10), (20, 0, 30, 10))) == 1.0
    assert box_f1(truth, boxes((0, 0, 10, 10))) == pytest.approx(2 / 3)
    assert box_f1(truth, boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))) == 1.0, "an ignored box is no error"
    assert box_f1(truth, boxes((0, 0, 10, 10), (0, 0, 10, 10))) == pytest.approx(2 / 4), "found twice is wrong once"
    assert box_f1(truth, boxes((0, 0, 10, 10, 1, False))) == 0.0, "another class"
    assert box_f1(boxes(), boxes()) is None
    assert box_f1(boxes(), boxes((0, 0, 9, 9))) == 0.0
    assert box_f1(boxes(unlabelled=(0,)), boxes((0, 0, 9, 9))) is None


def test_the_worst_pictures_are_kept_worst_first(repository: Path, tmp_path: Path) -> None:
    config = load(repository / "configs/4pe_resize/multitask.py")
    worst = Worst(config)
    for level in range(9):  # the lower, the less of the road is found
        truth = np.zeros(HW, np.uint8)
        found = np.ones(HW, np.uint8)
        found[: 12 * level] = 0
        sample = Sample(np.full((*HW, 3), 20 * level, np.uint8), {}, {"seg_default": truth})
        worst.add(sample, Prediction(HW, (), {"seg_default": found}), ["seg_default"], {})
    worst.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["worst_seg_default.jpg"]
    mosaic = cv2.imread(str(tmp_path / "worst_seg_default.jpg"))
    height = round(HW[0] * 480 / HW[1]) + 4
    tops = [int(mosaic[row * height + 20, 20].sum()) for row in range(6)]
    assert tops == sorted(tops), "darker pictures are worse here"


def test_boxes_of_low_scores_are_not_shown(repository: Path, tmp_path: Path) -> None:
    config = load(repository / "configs/4pe_resize/multitask.py")
    sample = Sample(np.zeros((*HW, 3), np.uint8), {"det_person": boxes((10, 10, 40, 90))}, {})
    found = Detection("det_person", "pedestrian", 0, 0.1, (10.0, 10.0, 40.0, 90.0))
    worst = Worst(config)
    worst.add(sample, Prediction(HW, (found,), {}), ["det_person"], {})
    worst.write(tmp_path)
    mosaic = cv2.imread(str(tmp_path / "worst_det_person.jpg"))
    assert mosaic[:250, :480].max() > 100, "the labelled box"
    assert mosaic[:250, 490:].max() < 60, "and none found"


def test_evaluate_leaves_curves_and_pictures_in_the_run(tiny_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_run.folder / "fusion-bn-c2-export-last.onnx"
    assert main(["--config", str(tiny_run.config), "--model", str(model)]) == 0
    folder = tiny_run.folder / "evaluate-fusion-bn-c2-export-last"
    assert str(folder) in capsys.readouterr().out
    names = {path.name for path in folder.iterdir()}
    assert {"confusion_seg_lane.png", "precision_recall_det_person.png", "worst_seg_lane.jpg"} <= names
    for name in names:
        assert cv2.imread(str(folder / name)) is not None


def test_every_step_leaves_curves_a_mosaic_and_its_circumstances(tiny_run: Any) -> None:
    for prefix in ("with-bn", "fusion-bn-c1", "fusion-bn-c2"):
        mosaic = cv2.imread(str(tiny_run.folder / f"{prefix}-validation.jpg"))
        assert mosaic.shape[1] == 4 * 480, "labels and predictions, boxes and lanes"
    assert cv2.imread(str(tiny_run.folder / "results.png")) is not None
    noted = json.loads((tiny_run.folder / "run.json").read_text())
    assert list(noted) == ["with-bn", "fusion-bn-c1", "fusion-bn-c2"]
    assert noted["with-bn"]["seed"] == load(tiny_run.config).env.seed
    assert noted["with-bn"]["versions"]["torch"].startswith("2.13")
