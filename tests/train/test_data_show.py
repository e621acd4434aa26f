"""`train.data.show`: what it counts, and the picture it draws."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from train.data.draw import TILE_WIDTH
from train.data.folder_writer import FolderWriter
from train.data.samples import Boxes, Sample, TaskLabels
from train.data.show import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = {
        "det_cyclist_light": TaskLabels(("cyclist", "traffic light"), unlabelled=("cyclist",)),
        "seg_lane": TaskLabels(None, either={254: ("solid line", "dashed line")}),
    }
    writer = FolderWriter(tmp_path / "set", labels)
    for number in range(3):
        mask = np.zeros((40, 60), np.uint8)
        mask[:10], mask[10:20] = 255, 254
        boxes = Boxes.of([(4, 4, 12, 4 + 10 * (number + 1), 1, False), (20, 4, 22, 6, 1, True)])
        picture = np.full((40, 60, 3), 90, np.uint8)
        writer.add(f"{number}", Sample(picture, {"det_cyclist_light": boxes}, {"seg_lane": mask}))
    writer.close()
    return tmp_path / "set"


def test_statistics_and_mosaic(folder: Path, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config, out = repository / "configs/4pe_resize/multitask.py", tmp_path / "out"
    assert main(["--config", str(config), "--data", str(folder), "--out", str(out), "--count", "2"]) == 0
    found = json.loads((out / "statistics.json").read_text())
    assert (found["pictures"], found["sizes"]) == (3, {"40x60": 3})
    lights = found["tasks"]["det_cyclist_light"]
    assert lights["traffic light"] == {
        "boxes": 3,
        "ignored": 3,
        "pictures": 3,
        "hw_percentiles": [[12.0, 8.0], [20.0, 8.0], [28.0, 8.0]],
        "pictures_unlabelled": 0,
    }
    assert lights["cyclist"]["pictures_unlabelled"] == 3
    lanes = found["tasks"]["seg_lane"]
    assert (lanes["background"], lanes["solid line or dashed line"], lanes["unknown"]) == (50.0, 25.0, 25.0)
    mosaic = cv2.imread(str(out / "mosaic.jpg"))
    assert mosaic.shape[1] == 2 * TILE_WIDTH, "boxes, and one mask beside them"
    assert mosaic.shape[0] > 2 * 320
    assert "not labelled" in capsys.readouterr().out


def test_a_configs_own_data(repository: Path, tmp_path: Path) -> None:
    config = repository / "configs/4pe_resize/multitask.py"
    assert (
        main(["--config", str(config), "--split", "val", "--out", str(tmp_path), "--limit", "2", "--count", "1"]) == 0
    )
    found = json.loads((tmp_path / "statistics.json").read_text())
    assert found["pictures"] == 2
    assert set(found["tasks"]) == {
        "det_cyclist_light",
        "det_person",
        "det_rear",
        "det_vehicle_sign",
        "seg_default",
        "seg_lane",
    }


def test_what_is_no_data_set_is_named(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = repository / "configs/4pe_resize/multitask.py"
    assert main(["--config", str(config), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "annotations.json: no such file" in capsys.readouterr().err
