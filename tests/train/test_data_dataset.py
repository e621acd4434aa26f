"""Data sets of tasks: batches, agreement with the config, the same pixels after a resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from configs import load
from configs.schema import Config
from configs.task import FolderSource, SceneSource, TaskData
from train.data import dataset as module
from train.data.dataset import Batch, TaskDataset, collate, open_source
from train.data.errors import DataError
from train.data.generate import generate
from train.order import SampleOrder

SIZE = (240, 320)
SCENES = SceneSource(kind="scenes", seed=0, count=6, sizes=(SIZE, (260, 340)))


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Config:
    return load(repository / "configs" / "4pe_resize" / "multitask.py")


def with_data(config: Config, *sources: SceneSource | FolderSource, **common: Any) -> Config:
    data = TaskData(train=sources, val=sources)
    tasks = tuple(task.model_copy(update={"data": data}) for task in config.tasks)
    small = {"resize_hw": (200, 400), "crop_hw": (192, 256), **common}
    return config.model_copy(update={"tasks": tasks, "common": config.common.model_copy(update=small)})


def dataset_of(config: Config, *tasks: str) -> TaskDataset:
    (group,) = config.data_groups("train")
    return TaskDataset(config, group._replace(tasks=tasks))


def names(config: Config) -> tuple[str, ...]:
    return tuple(task.name for task in config.tasks)


def test_a_batch_serves_all_tasks(shipped: Config) -> None:
    config = with_data(shipped, SCENES)
    dataset = dataset_of(config, *names(config))
    batch = collate([dataset[0, 7], dataset[1, 8]])
    assert set(batch.tasks) == set(names(config))
    assert batch.pictures.shape == (2, 3, 192, 256)
    assert batch.pictures.dtype == torch.uint8
    assert batch.masks["seg_default"].labels.shape == (2, 192, 256)
    assert batch.masks["seg_lane"].labels.dtype == torch.uint8
    for targets in batch.boxes["det_rear"]:
        assert targets.boxes.shape == (len(targets.classes), 4)
        assert targets.boxes.dtype == torch.float32
        assert targets.ignore.dtype == torch.bool
    images = batch.images()
    assert torch.equal(images * 128 + 128, batch.pictures.float())


def test_a_loop_over_scenes_ends() -> None:
    source = open_source(SCENES)
    assert len(list(source)) == len(source) == 6
    with pytest.raises(IndexError):
        source[-1]


def test_only_the_labels_of_the_group_are_kept(shipped: Config) -> None:
    dataset = dataset_of(with_data(shipped, SCENES), "seg_lane")
    sample = dataset[2, 0]
    assert set(sample.masks) == {"seg_lane"}
    assert not sample.boxes


def test_without_resizing_the_crop_is_taken_from_the_full_picture(shipped: Config) -> None:
    dataset = dataset_of(with_data(shipped, SCENES, resize_hw=None, crop_hw=(224, 300)), "seg_lane")
    assert dataset[0, 1].picture.shape == (224, 300, 3)


def test_small_sets_are_drawn_once(shipped: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    render = module.render_sample
    monkeypatch.setattr(module, "render_sample", lambda seed, hw: drawn.append(seed) or render(seed, hw))
    dataset = dataset_of(with_data(shipped, SCENES), "seg_lane")
    for draw in range(5):
        dataset[draw % 2, draw]
    assert drawn == [0, 1]
    monkeypatch.setattr(module, "CACHE_BYTES", 1)
    for draw in range(5):
        dataset[2 + draw % 2, draw]
    assert drawn == [0, 1, 2, 3, 2, 3, 2]


def test_sources_follow_one_another(shipped: Config, tmp_path: Path) -> None:
    generate(tmp_path, 2, 50, [SIZE])
    folder = FolderSource(kind="folder", path=str(tmp_path))
    both = dataset_of(with_data(shipped, SCENES, folder), "seg_default")
    alone = dataset_of(with_data(shipped, folder), "seg_default")
    assert len(both) == 8
    assert np.array_equal(both[7, 3].picture, alone[1, 3].picture)
    assert np.array_equal(both[7, 3].masks["seg_default"], alone[1, 3].masks["seg_default"])


def test_a_resumed_loader_gives_the_same_batches(shipped: Config) -> None:
    config = with_data(shipped, SCENES)
    dataset = dataset_of(config, *names(config))
    order = SampleOrder(len(dataset), 2, seed=(1, 0, 0), chunk=4)

    def batches(start: int, workers: int) -> list[Batch]:
        sampler: Any = list(order.batches(start, 7))
        return list(DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate))

    whole, resumed = batches(0, 2), batches(4, 0)
    for before, after in zip(whole[4:], resumed, strict=True):
        assert torch.equal(before.pictures, after.pictures)
        assert torch.equal(before.masks["seg_lane"].labels, after.masks["seg_lane"].labels)
        for one, other in zip(before.boxes["det_rear"], after.boxes["det_rear"], strict=True):
            assert torch.equal(one.boxes, other.boxes)


def test_a_set_without_labels_of_the_task_is_refused(shipped: Config, tmp_path: Path) -> None:
    generate(tmp_path, 1, 0, [SIZE])
    (tmp_path / "masks" / "seg_lane").rename(tmp_path / "masks" / "lanes")
    config = with_data(shipped, FolderSource(kind="folder", path=str(tmp_path)))
    with pytest.raises(DataError, match="has no labels of task seg_lane"):
        dataset_of(config, "seg_lane")


def test_other_class_names_are_refused(shipped: Config, tmp_path: Path) -> None:
    generate(tmp_path, 1, 0, [SIZE])
    path = tmp_path / "annotations.json"
    path.write_text(path.read_text().replace('"vehicle rear"', '"tail"'))
    config = with_data(shipped, FolderSource(kind="folder", path=str(tmp_path)))
    with pytest.raises(DataError, match=r"the classes of task det_rear are \('vehicle front', 'tail'\)"):
        dataset_of(config, "det_rear")


def test_a_class_beyond_the_config_is_refused(shipped: Config) -> None:
    config = with_data(shipped, SCENES)
    lane = config.task("seg_lane")
    tasks = tuple(t if t is not lane else lane.model_copy(update={"classes": lane.classes[:1]}) for t in config.tasks)
    source = open_source(SCENES)
    assert source[0].masks["seg_lane"].max() > 0
    with pytest.raises(DataError, match="task seg_lane"):
        dataset_of(config.model_copy(update={"tasks": tasks}), "seg_lane")[0, 0]
