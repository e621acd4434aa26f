"""Files of results: what they hold, and that they appear whole."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from runtime.artifact import Manifest
from runtime.predict import Detection, Prediction
from runtime.results import ResultsWriter, write_mask, write_picture

FOUND = Detection("det_thing", "other thing", 1, 0.87654, (1.234, 2.0, 11.239, 8.5))
PREDICTION = Prediction((80, 128), (FOUND,), {"seg_bright": np.zeros((80, 128), np.uint8)})


@pytest.fixture
def saved(tmp_path: Path, manifest: Manifest) -> Path:
    writer = ResultsWriter(tmp_path / "new" / "out", "m.so", manifest.tasks)
    writer.add("a.jpg", PREDICTION, {"seg_bright": "masks/seg_bright/a.png"})
    writer.add("v.mp4", PREDICTION, {}, frame=7)
    writer.add_failure("bad.jpg", "bad.jpg: the file is empty")
    writer.save()
    return tmp_path / "new" / "out"


def test_results_json(saved: Path) -> None:
    data = json.loads((saved / "results.json").read_text())
    assert data["model"] == "m.so"
    assert data["tasks"] == ["det_thing", "seg_bright"]
    detection = {"task": "det_thing", "class": "other thing", "score": 0.8765, "box": [1.23, 2.0, 11.24, 8.5]}
    masks = {"seg_bright": "masks/seg_bright/a.png"}
    expected = {"file": "a.jpg", "width": 128, "height": 80, "detections": [detection], "masks": masks}
    assert data["images"][0] == expected
    assert data["images"][1] == {**expected, "file": "v.mp4", "frame": 7, "masks": {}}
    assert data["failed"] == [{"file": "bad.jpg", "error": "bad.jpg: the file is empty"}]


def test_coco_format_is_read_by_pycocotools(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = COCO(str(saved / "coco_images.json"))
    results = truth.loadRes(str(saved / "coco_results.json"))
    (first, second) = results.loadAnns(results.getAnnIds())
    assert first["bbox"] == [1.23, 2.0, 10.01, 6.5]
    assert truth.loadCats(first["category_id"])[0] == {"id": 2, "name": "other thing", "supercategory": "det_thing"}
    assert [truth.loadImgs(ann["image_id"])[0]["file_name"] for ann in (first, second)] == ["a.jpg", "v.mp4#7"]


def test_nothing_half_written_stays(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["coco_images.json", "coco_results.json", "results.json"]


def test_a_mask_is_written_exactly(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    write_mask(tmp_path / "deep" / "m.png", mask)
    assert np.array_equal(cv2.imread(str(tmp_path / "deep" / "m.png"), cv2.IMREAD_UNCHANGED), mask)


def test_a_picture_keeps_its_colours(tmp_path: Path) -> None:
    picture = np.full((32, 32, 3), (200, 30, 60), np.uint8)
    write_picture(tmp_path / "p.jpg", picture)
    back = cv2.imread(str(tmp_path / "p.jpg"))[16, 16, ::-1].astype(int)
    assert np.abs(back - [200, 30, 60]).max() < 6
