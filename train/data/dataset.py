"""The training data of a group of tasks: sources opened, pictures resized, augmented and put into batches.

Which picture comes when is not decided here but in `train.order`: an item is asked for as (picture, draw), and is a
pure function of the two. That is what makes a resumed run see the same pixels.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from configs.schema import Config
from configs.task import FolderSource as FolderSettings
from configs.task import SceneSource as SceneSettings
from train.data.classes import DETECTION_CLASSES, IGNORE, SEGMENTATION_CLASSES
from train.data.errors import DataError
from train.data.folder import FolderSource
from train.data.samples import Boxes, Sample, Source
from train.data.scenes import render_sample
from train.data.transforms import Augment, min_max_size, resize

__all__ = ["Batch", "BoxTargets", "Boxes", "Sample", "SceneSource", "TaskDataset", "collate", "open_source"]

CACHE_BYTES = 192 << 20  # per loading process: small data sets are decoded or drawn once only


@dataclass
class BoxTargets:
    """Boxes of one picture as tensors: boxes (n, 4) float32 x1, y1, x2, y2 in pixels of the input, classes (n,) int64,
    ignore (n,) bool.
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    ignore: torch.Tensor


@dataclass
class Batch:
    """N training pictures with their labels. Not frozen, so that Fabric can move it to a device.

    `pictures` uint8 (N, 3, H, W) RGB; `boxes` per detection task one BoxTargets per picture, `masks` per segmentation
    task uint8 (N, H, W), 255 ignored.
    """

    tasks: tuple[str, ...]
    pictures: torch.Tensor
    boxes: dict[str, list[BoxTargets]]
    masks: dict[str, torch.Tensor]

    def images(self) -> torch.Tensor:
        """The network's input, float32 (N, 3, H, W): (p - 128) / 128, exact."""
        return (self.pictures.to(torch.float32) - 128.0) / 128.0


class SceneSource:
    """Embedded scenes: picture i is scene `seed + i`, its size cycling through `sizes` (h, w)."""

    classes: Mapping[str, tuple[str, ...] | None] = {**DETECTION_CLASSES, **SEGMENTATION_CLASSES}

    def __init__(self, seed: int, count: int, sizes: Sequence[tuple[int, int]]) -> None:
        self._seed, self._count, self._sizes = seed, count, tuple(sizes)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return render_sample(self._seed + index, self._sizes[index % len(self._sizes)])


def open_source(source: object) -> Source:
    """The samples of a config's source entry. DataError if a folder is not in the format."""
    if isinstance(source, SceneSettings):
        return SceneSource(source.seed, source.count, source.sizes)
    if isinstance(source, FolderSettings):
        return FolderSource(Path(source.path))
    raise DataError(f"{source!r}: no data source; kinds are 'scenes' and 'folder'")


class TaskDataset(Dataset[Sample]):
    """The pictures of a group of tasks with equal data, ready for the network: item (picture, draw) is a Sample of size
    `crop_hw`.

    `split` is "train" or "val". DataError if a source does not label one of the tasks, or labels other classes.
    """

    def __init__(self, config: Config, names: Sequence[str], *, split: str) -> None:
        self._tasks = {name: config.task(name) for name in names}
        data = next(iter(self._tasks.values())).data
        self._settings = data.train if split == "train" else data.val
        self._sources = [open_source(entry) for entry in self._settings]
        for entry, source in zip(self._settings, self._sources, strict=True):
            self._check_classes(str(getattr(entry, "path", "embedded scenes")), source)
        self._starts = np.cumsum([0, *(len(source) for source in self._sources)]).tolist()
        self._resize_hw = config.common.resize_hw
        self._augment = Augment(config.common.crop_hw, config.common.augmentation)
        self._cache: OrderedDict[int, Sample] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        picture, draw = key
        return self._augment(self._prepared(picture), draw)

    def _prepared(self, picture: int) -> Sample:
        """The resized picture with the labels of these tasks, from memory if it was used lately."""
        if picture in self._cache:
            self._cache.move_to_end(picture)
            return self._cache[picture]
        number = int(np.searchsorted(self._starts, picture, side="right")) - 1
        sample = self._of_tasks(self._sources[number][picture - self._starts[number]])
        if self._resize_hw is not None:
            height, width = sample.picture.shape[:2]
            sample = resize(sample, min_max_size((height, width), self._resize_hw))
        self._cache[picture] = sample
        self._cached_bytes += sample.bytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].bytes
        return sample

    def _of_tasks(self, sample: Sample) -> Sample:
        boxes = {name: entry for name, entry in sample.boxes.items() if name in self._tasks}
        masks = {name: mask for name, mask in sample.masks.items() if name in self._tasks}
        for name, mask in masks.items():
            count = len(self._tasks[name].classes)
            wrong = mask[(mask >= count) & (mask != IGNORE)]
            if wrong.size:
                raise DataError(
                    f"a mask of task {name} holds class {int(wrong[0])}, the config has {count} classes; "
                    f"map it to one of them or to {IGNORE}"
                )
        return Sample(sample.picture, boxes, masks)

    def _check_classes(self, where: str, source: Source) -> None:
        for name, task in self._tasks.items():
            if name not in source.classes:
                raise DataError(
                    f"{where}: has no labels of task {name} (it labels {', '.join(source.classes) or 'nothing'}); "
                    "give that task other data"
                )
            theirs, ours = source.classes[name], tuple(entry.name for entry in task.classes)
            if theirs is not None and theirs != ours:
                raise DataError(
                    f"{where}: the classes of task {name} are {theirs}, the config's are {ours}; "
                    "make names and order equal"
                )


def collate(samples: Sequence[Sample]) -> Batch:
    """A batch of samples of one size that label the same tasks."""
    first = samples[0]
    pictures = torch.from_numpy(
        np.stack([np.ascontiguousarray(sample.picture.transpose(2, 0, 1)) for sample in samples])
    )
    boxes = {task: [_targets(sample.boxes[task]) for sample in samples] for task in first.boxes}
    masks = {task: torch.from_numpy(np.stack([sample.masks[task] for sample in samples])) for task in first.masks}
    return Batch((*first.boxes, *first.masks), pictures, boxes, masks)


def _targets(boxes: Boxes) -> BoxTargets:
    return BoxTargets(torch.from_numpy(boxes.boxes), torch.from_numpy(boxes.classes), torch.from_numpy(boxes.ignore))
