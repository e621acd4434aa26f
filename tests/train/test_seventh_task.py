"""docs/adding-a-task.md: the file on that page, one name in the list, and it goes through all steps."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import ConfigError, load
from configs.task import FolderSource, SceneSource
from tests.seventh_task import add_seventh_task
from tests.train.conftest import SCRIPT, TASK
from train.data.classes import LANE, ROAD, SIDEWALK, SKY
from train.data.dataset import Labelled
from train.data.errors import DataError
from train.data.scenes import render_sample

SIDE = 16  # the smallest picture there is
SCENES = SceneSource(kind="scenes", seed=1, count=2, sizes=((256, 512),))


@pytest.fixture
def config_file(repository: Path, tiny_config: Callable[[Path], Path], tmp_path: Path) -> Path:
    """The tiny config with the seventh task beside two of the others."""
    file = tiny_config(tmp_path)
    add_seventh_task(repository, file, data=TASK)
    file.write_text(file.read_text() + "tasks = [det_person, seg_lane, seg_drivable]\n")
    return file


def test_the_page_names_all_seven(repository: Path, tmp_path: Path, tiny_config: Callable[[Path], Path]) -> None:
    file = tiny_config(tmp_path)
    add_seventh_task(repository, file)
    assert [task.name for task in load(file).tasks][-2:] == ["seg_lane", "seg_drivable"]
    assert len(load(file).tasks) == 7


def test_from_training_to_the_compiled_model(config_file: Path, repository: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["bash", SCRIPT, "--config", str(config_file), "--pipeline-test", "--out", str(run)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=repository, check=True, env={**os.environ, "PATH": path})
    verified = json.loads((run / "verify.json").read_text())
    assert verified["mismatches"] == 0
    assert {"seg_drivable.logits", "seg_drivable.mask"} <= {entry["name"] for entry in verified["outputs"]}
    manifest = json.loads((run / "int-inference-export-last.json").read_text())
    assert [task["name"] for task in manifest["tasks"]] == ["det_person", "seg_lane", "seg_drivable"]


def test_masks_come_from_the_other_task(config_file: Path) -> None:
    mask = Labelled(SCENES, {"seg_drivable": load(config_file).task("seg_drivable")})[0].masks["seg_drivable"]
    expected = np.isin(render_sample(1, (256, 512)).masks["seg_default"], (ROAD, LANE))
    assert (mask == expected).all()
    assert 0 < expected.mean() < 1


def test_a_data_set_with_masks_of_several_meanings(config_file: Path, tmp_path: Path) -> None:
    """CamVid's road may be a marking: drivable either way. What may be road or sidewalk is left out."""
    values = {"seg_default": {"253": ["road", "lane marking"], "254": ["road", "sidewalk"]}}
    folder = data_set(tmp_path / "set", row(ROAD, SIDEWALK, SKY, 253, 254, 255), values)
    task = load(config_file).task("seg_drivable")
    assert Labelled(folder, {"seg_drivable": task})[0].masks["seg_drivable"][0, ::SIDE].tolist() == [
        1,
        0,
        0,
        1,
        255,
        255,
    ]


def test_masks_of_its_own_go_first(config_file: Path, tmp_path: Path) -> None:
    folder = data_set(tmp_path / "set", row(ROAD, SKY), {})
    own = tmp_path / "set/masks/seg_drivable"
    own.mkdir()
    assert cv2.imwrite(str(own / "0.png"), row(0, 1))
    task = load(config_file).task("seg_drivable")
    assert Labelled(folder, {"seg_drivable": task})[0].masks["seg_drivable"][0, ::SIDE].tolist() == [0, 1]


def row(*values: int) -> np.ndarray:
    """A mask with a square of each value, side by side."""
    return np.repeat(np.repeat(np.array([values], np.uint8), SIDE, axis=0), SIDE, axis=1)


def data_set(folder: Path, mask: np.ndarray, mask_values: dict) -> FolderSource:
    """One picture with this mask of seg_default."""
    for name, pixels in (("images", np.zeros((*mask.shape, 3), np.uint8)), ("masks/seg_default", mask)):
        (folder / name).mkdir(parents=True)
        assert cv2.imwrite(str(folder / name / "0.png"), pixels)
    image = {"id": 1, "file_name": "0.png", "height": mask.shape[0], "width": mask.shape[1]}
    content = {"images": [image], "categories": [], "annotations": [], "mask_values": mask_values}
    (folder / "annotations.json").write_text(json.dumps(content))
    return FolderSource(kind="folder", path=str(folder))


def test_a_class_that_the_other_task_does_not_have(config_file: Path) -> None:
    edit(config_file, '["road", "lane marking"]', '["street"]')
    task = load(config_file).task("seg_drivable")
    with pytest.raises(
        DataError, match=r"seg_drivable: relabel\.classes\.drivable area: 'street' is no class of seg_def"
    ):
        Labelled(SCENES, {"seg_drivable": task})


@pytest.mark.parametrize("name", ["elsewhere", "drivable"])
def test_relabel_names_the_tasks_classes_but_the_first(config_file: Path, name: str) -> None:
    edit(config_file, '{"drivable area": [', f'{{"{name}": [')
    with pytest.raises(ConfigError, match=rf"relabel\.classes names '{name}'; name classes of this task but its first"):
        load(config_file)


def edit(config_file: Path, old: str, new: str) -> None:
    file = config_file.parent / "seg_drivable.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
