"""What a data set does not label is not learned as background, and not counted as an error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from configs import load
from configs.schema import Config
from configs.task import FolderSource as FolderSettings
from configs.task import SceneSource as SceneSettings
from configs.task import TaskData
from train.data.dataset import BoxTargets, Labelled, MaskTargets, TaskDataset, collate
from train.data.errors import DataError
from train.data.folder import ANNOTATIONS, FolderSource
from train.data.folder_writer import FolderWriter
from train.data.samples import Boxes, Sample, TaskLabels
from train.losses import build_losses
from train.metrics import BoxMetric, PixelMetric

HW = (32, 48)
LINES = ("solid line", "dashed line")
LABELS = {
    "det_cyclist_light": TaskLabels(("cyclist", "traffic light"), unlabelled=("cyclist",)),
    "seg_lane": TaskLabels(None, either={254: LINES}),
}


@pytest.fixture(scope="module")
def config(repository: Path) -> Config:
    return load(repository / "configs/4pe_resize/multitask.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "set"
    mask = np.zeros(HW, np.uint8)
    mask[10:20], mask[20:] = 254, 255
    writer = FolderWriter(out, LABELS)
    lights = Boxes.of([(4, 4, 12, 20, 1, False)])
    writer.add("a", Sample(np.full((*HW, 3), 90, np.uint8), {"det_cyclist_light": lights}, {"seg_lane": mask}))
    writer.close()
    return out


def test_written_is_read(folder: Path) -> None:
    source = FolderSource(folder)
    assert source.labels == LABELS
    assert source[0].boxes["det_cyclist_light"].unlabelled == (0,)
    assert set(np.unique(source[0].masks["seg_lane"])) == {0, 254, 255}


def with_data(config: Config, names: set[str], *paths: Path) -> Config:
    """The tasks of these names, on folders."""
    sources = tuple(FolderSettings(kind="folder", path=str(path)) for path in paths)
    data = TaskData(train=sources, val=sources)
    tasks = tuple(task.model_copy(update={"data": data}) for task in config.tasks if task.name in names)
    return config.model_copy(update={"tasks": tasks})


def test_a_batch_carries_it(config: Config, folder: Path) -> None:
    (group,) = with_data(config, {*LABELS}, folder).data_groups("train")
    dataset = TaskDataset(config, group)
    batch = collate([dataset[0, 1], dataset[0, 2]], dataset.either)
    assert batch.masks["seg_lane"].either == {254: (1, 2)}
    assert [targets.unlabelled for targets in batch.boxes["det_cyclist_light"]] == [(0,), (0,)]


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = folder / ANNOTATIONS
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def test_two_sets_must_mean_the_same(config: Config, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    writer = FolderWriter(other, {"seg_lane": TaskLabels(None, either={254: ("background", "other road marking")})})
    writer.add("a", Sample(np.zeros((*HW, 3), np.uint8), {}, {"seg_lane": np.full(HW, 254, np.uint8)}))
    writer.close()
    with pytest.raises(DataError, match="value 254 of its masks stands for other classes"):
        TaskDataset(config, with_data(config, {"seg_lane"}, folder, other).data_groups("train")[0])


def test_a_config_without_one_of_the_classes_sees_the_others(config: Config, folder: Path) -> None:
    lane = config.task("seg_lane")
    fewer = tuple(entry for entry in lane.classes if entry.name != "dashed line")
    with pytest.raises(DataError, match="dashed line is no class"):
        Labelled(
            FolderSettings(kind="folder", path=str(folder)), {"seg_lane": lane.model_copy(update={"classes": fewer})}
        )
    without = lane.model_copy(update={"classes": fewer, "without": ("dashed line",)})
    source = Labelled(FolderSettings(kind="folder", path=str(folder)), {"seg_lane": without})
    assert source.either == {"seg_lane": {254: (1,)}}


def test_pixels_of_a_class_that_the_config_is_without_are_ignored(config: Config, folder: Path) -> None:
    lane = config.task("seg_lane")
    fewer, entry = lane.classes[:3], FolderSettings(kind="folder", path=str(folder))
    mask = np.zeros(HW, np.uint8)
    mask[10:20] = 3
    cv2.imwrite(str(folder / "masks/seg_lane/a.png"), mask)
    with pytest.raises(DataError, match="holds class 3, the config has 3 classes"):
        _ = Labelled(entry, {"seg_lane": lane.model_copy(update={"classes": fewer})})[0]
    without = lane.model_copy(update={"classes": fewer, "without": ("other road marking",)})
    assert set(np.unique(Labelled(entry, {"seg_lane": without})[0].masks["seg_lane"])) == {0, 255}
    assert set(np.unique(Labelled(entry, {"seg_lane": lane})[0].masks["seg_lane"])) == {0, 3}
    scenes = SceneSettings(kind="scenes", seed=1, count=1, sizes=((240, 320),))
    assert set(np.unique(Labelled(scenes, {"seg_lane": without})[0].masks["seg_lane"])) <= {0, 1, 2, 255}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seg_lane": {"254": ["solid line", "kerb"]}}, "kerb is no class"),
        ({"seg_lane": {"3": list(LINES)}}, "3 is a class itself"),
        ({"seg_lane": {"254": ["solid line"]}}, "two or more"),
        ({"seg_lane": {"255": list(LINES)}}, "values below 255"),
        ({"seg_lane": ["solid line"]}, "must map values"),
        ({}, "holds class 254"),
    ],
)
def test_wrong_values_are_named(config: Config, folder: Path, values: Any, message: str) -> None:
    edited(folder, lambda content: content.update(mask_values=values))
    with pytest.raises(DataError, match=message):
        _ = Labelled(FolderSettings(kind="folder", path=str(folder)), {"seg_lane": config.task("seg_lane")})[0]


def test_a_box_of_an_unlabelled_class_is_a_contradiction(folder: Path) -> None:
    edited(folder, lambda content: content["annotations"][0].update(category_id=1))
    with pytest.raises(DataError, match=r"annotations\[0\]: its category is not labelled in this set"):
        FolderSource(folder)


def test_one_of_several_classes_costs_their_common_probability(config: Config) -> None:
    loss = build_losses(config)["seg_lane"]
    logits = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    labels = torch.full((1, 8, 12), 254, dtype=torch.uint8)
    found = loss({"seg_lane.logits": logits}, MaskTargets(labels, {254: (1, 2)}))
    probabilities = logits.softmax(dim=1)
    expected = -(probabilities[:, 1] + probabilities[:, 2]).log().mean()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    found.backward()
    assert (logits.grad[:, [0, 3]] > 0).all(), "the others are pushed down"
    assert (logits.grad[:, 1] / logits.grad[:, 2]).std() > 0, "and the likelier of the two is raised more"


def test_exact_labels_beside_such_ones(config: Config) -> None:
    """A mean over both, weighted as cross-entropy weights them."""
    loss = build_losses(config)["seg_lane"]
    logits = torch.randn(1, 4, 1, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(1, 4, 8, dtype=torch.uint8)
    labels[..., 4:] = 254
    found = loss({"seg_lane.logits": logits}, MaskTargets(labels, {254: (1, 2)}))
    probabilities = logits.softmax(dim=1)[0, :, 0]
    weights = config.task("seg_lane").loss.class_weights
    costs = -probabilities[0, 0].log() * weights[0] - (probabilities[1, 1] + probabilities[2, 1]).log() * weights[1]
    torch.testing.assert_close(found, costs / (weights[0] + weights[1]))


def test_scores_of_an_unlabelled_class_have_no_gradient(config: Config) -> None:
    task = config.task("det_cyclist_light")
    loss, outputs = build_losses(config)[task.name], {}
    for stride in task.head.strides:
        size = (-(-64 // stride), -(-96 // stride))
        outputs[f"{task.name}.score_s{stride}"] = torch.zeros(1, 6, *size, requires_grad=True)
        outputs[f"{task.name}.delta_s{stride}"] = torch.zeros(1, 12, *size)
    boxes = torch.tensor([[10.0, 10.0, 26.0, 42.0]])
    target = BoxTargets(boxes, torch.tensor([1]), torch.tensor([False]), unlabelled=(0,))
    loss(outputs, [target]).backward()
    for stride in task.head.strides:
        gradient = outputs[f"{task.name}.score_s{stride}"].grad.reshape(3, 2, -1)  # anchors, classes, cells
        assert not gradient[:, 0].any()
        assert gradient[:, 1].any()


def test_metrics_of_one_of_several_classes() -> None:
    metric = PixelMetric(["none", "solid", "dashed"], 255)
    truth = np.array([[9, 9, 9, 0, 255]], np.uint8)
    found = np.array([[1, 2, 0, 0, 1]], np.uint8)
    metric.add(truth, found, {9: (1, 2)})
    result = metric.result()["per_class"]
    assert result["solid"]["miou"] == pytest.approx(200 / 3), "either counts as the first one; one of three is missed"
    assert result["none"]["miou"] == pytest.approx(50)
    assert result["dashed"]["miou"] is None


def test_what_is_found_of_an_unlabelled_class_is_no_error() -> None:
    metric = BoxMetric(["a", "b"])
    box = np.array([[0.0, 0, 10, 10]])
    found, classes = np.concatenate([box, box + 50]), np.array([1, 0])
    metric.add(box, np.array([1]), np.array([False]), found, classes, np.array([0.5, 0.9]), unlabelled=(0,))
    metric.add(box, np.array([0]), np.array([False]), box, np.array([0]), np.array([0.8]))
    assert {name: value["map"] for name, value in metric.result()["per_class"].items()} == {"a": 100, "b": 100}
