"""The training data of a group of tasks: sources opened, pictures resized, augmented and put into batches.

Which picture comes when is not decided here but in `train.order`: an item is asked for as (picture, draw), and is a
pure function of the two. That is what makes a resumed run see the same pixels.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from configs.schema import Config, DataGroup
from configs.task import DetectionTask, SegmentationTask
from configs.task import FolderSource as FolderSettings
from configs.task import SceneSource as SceneSettings
from train.data.classes import DETECTION_CLASSES, IGNORE, SEGMENTATION_CLASSES
from train.data.errors import DataError
from train.data.folder import FolderSource
from train.data.relabel import Relabelled
from train.data.samples import Boxes, Either, Sample, Source, TaskLabels
from train.data.scenes import render_sample
from train.data.transforms import Augment, min_max_size, resize

__all__ = ["Batch", "BoxTargets", "Boxes", "Labelled", "Sample", "SceneSource", "TaskDataset", "collate", "open_source"]

CACHE_BYTES = 192 << 20  # per loading process: small data sets are decoded or drawn once only


@dataclass
class BoxTargets:
    """Boxes of one picture as tensors: boxes (n, 4) float32 x1, y1, x2, y2 in pixels of the input, classes (n,) int64,
    ignore (n,) bool. `unlabelled` are the classes of which nothing is known.
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    ignore: torch.Tensor
    unlabelled: tuple[int, ...] = ()


@dataclass
class MaskTargets:
    """Masks of a batch: labels uint8 (N, H, W), 255 ignored; `either`: values that stand for one of several classes."""

    labels: torch.Tensor
    either: Either


@dataclass
class Batch:
    """N training pictures with their labels. Not frozen, so that Fabric can move it to a device.

    `pictures` uint8 (N, 3, H, W) RGB; `boxes` per detection task one BoxTargets per picture, `masks` per segmentation
    task.
    """

    tasks: tuple[str, ...]
    pictures: torch.Tensor
    boxes: dict[str, list[BoxTargets]]
    masks: dict[str, MaskTargets]

    def images(self) -> torch.Tensor:
        """The network's input, float32 (N, 3, H, W): (p - 128) / 128, exact."""
        return (self.pictures.to(torch.float32) - 128.0) / 128.0


class SceneSource:
    """Embedded scenes: picture i is scene `seed + i`, its size cycling through `sizes` (h, w)."""

    labels: Mapping[str, TaskLabels] = {
        task: TaskLabels(names) for task, names in {**DETECTION_CLASSES, **SEGMENTATION_CLASSES}.items()
    }

    def __init__(self, seed: int, count: int, sizes: Sequence[tuple[int, int]]) -> None:
        self._seed, self._count, self._sizes = seed, count, tuple(sizes)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(index)  # ends a loop over the source, too
        return render_sample(self._seed + index, self._sizes[index % len(self._sizes)])


def open_source(source: object) -> Source:
    """The samples of a config's source entry. DataError if a folder is not in the format."""
    if isinstance(source, SceneSettings):
        return SceneSource(source.seed, source.count, source.sizes)
    if isinstance(source, FolderSettings):
        return FolderSource(Path(source.path))
    raise DataError(f"{source!r}: no data source; kinds are 'scenes' and 'folder'")


class HasEither(Protocol):
    """What has masks: `either` by task."""

    @property
    def either(self) -> Mapping[str, Either]: ...


class Labelled:
    """A source with the labels of `tasks` only, which have to be those that the config means.

    DataError if it labels other classes, or, unless `partly`, does not label one of the tasks.
    """

    def __init__(
        self, entry: object, tasks: Mapping[str, DetectionTask | SegmentationTask], *, partly: bool = False
    ) -> None:
        self.where = str(getattr(entry, "path", "embedded scenes"))
        self._source = Relabelled(open_source(entry), tasks, self.where)
        self._tasks = {name: task for name, task in tasks.items() if not partly or name in self._source.labels}
        if not self._tasks:
            raise DataError(f"{self.where}: labels none of the tasks {', '.join(tasks)}; give another data set")
        for name, task in self._tasks.items():
            self._check_classes(name, tuple(entry.name for entry in task.classes))
        self.either: dict[str, Either] = {name: self._indices(name) for name in self._tasks}
        self._left_out = {name: self._values_without(name) for name in self._tasks}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        boxes = {name: entry for name, entry in sample.boxes.items() if name in self._tasks}
        masks = {name: mask for name, mask in sample.masks.items() if name in self._tasks}
        for name, mask in masks.items():
            if self._left_out[name]:
                masks[name] = np.where(np.isin(mask, self._left_out[name]), np.uint8(IGNORE), mask)
            self._check_mask(name, masks[name], index)
        return Sample(sample.picture, boxes, masks)

    def _check_mask(self, name: str, mask: NDArray[np.uint8], index: int) -> None:
        count = len(self._tasks[name].classes)
        unusual = mask[(mask >= count) & (mask != IGNORE)]
        wrong = unusual[~np.isin(unusual, list(self.either[name]))]
        if wrong.size:
            raise DataError(
                f"{self.where}: the mask of task {name} of picture {index} (from 0) holds class {int(wrong[0])}, the "
                f"config has {count} classes; map it to one of them or to {IGNORE}"
            )

    def _check_classes(self, name: str, ours: tuple[str, ...]) -> None:
        known = self._source.labels
        if name not in known:
            raise DataError(
                f"{self.where}: has no labels of task {name} (it labels {', '.join(known) or 'nothing'}); "
                "give that task other data"
            )
        theirs = known[name].classes
        if theirs is not None and (theirs[: len(ours)] != ours or not set(theirs[len(ours) :]) <= self._without(name)):
            raise DataError(
                f"{self.where}: the classes of task {name} are {theirs}, the config's are {ours}; "
                "make names and order equal"
            )

    def _without(self, name: str) -> set[str]:
        """The classes that the config says it is without; boxes know no such thing."""
        return set(getattr(self._tasks[name], "without", ()))

    def _values_without(self, name: str) -> list[int]:
        """Values of a task's masks behind the config's classes that mean one which the config is `without`."""
        names = self._source.labels[name].classes or SEGMENTATION_CLASSES.get(name, ())
        count, without = len(self._tasks[name].classes), self._without(name)
        return [value for value, entry in enumerate(names) if value >= count and entry in without]

    def _indices(self, name: str) -> Either:
        """Values of a task's masks that stand for several classes, with the indices of those that the config has."""
        places = {entry.name: index for index, entry in enumerate(self._tasks[name].classes)}
        without = self._without(name)
        found = {}
        for value, names in self._source.labels[name].either.items():
            unknown = [entry for entry in names if entry not in places and entry not in without]
            if unknown or value < len(places) or set(names) <= without:
                what = f"{value} is a class itself" if value < len(places) else f"{(*unknown, names[0])[0]} is no class"
                raise DataError(
                    f"{self.where}: mask_values of task {name}: {value} stands for {', '.join(names)}, but in the "
                    f"config {what}; correct the data set's annotations.json"
                )
            found[value] = tuple(places[entry] for entry in names if entry in places)
        return found


class TaskDataset(Dataset[Sample]):
    """The pictures of a group of sources, ready for the network: item (picture, draw) is a Sample of size `crop_hw`.

    DataError if a source does not label one of the group's tasks, or labels other classes.
    """

    def __init__(self, config: Config, group: DataGroup) -> None:
        self._sources = labelled(config, group)
        self.either = joined(self._sources)  # by task, the values of masks that stand for several classes
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
        sample = self._sources[number][picture - self._starts[number]]
        if self._resize_hw is not None:
            height, width = sample.picture.shape[:2]
            sample = resize(sample, min_max_size((height, width), self._resize_hw))
        self._cache[picture] = sample
        self._cached_bytes += sample.bytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].bytes
        return sample


def labelled(config: Config, group: DataGroup) -> list[Labelled]:
    """The group's sources with the labels of its tasks."""
    tasks = {name: config.task(name) for name in group.tasks}
    return [Labelled(source, tasks) for source in group.sources]


def joined(sources: Sequence[HasEither]) -> dict[str, Either]:
    """What the values of the masks mean, by task, in all these sources. DataError where they do not agree."""
    result: dict[str, dict[int, tuple[int, ...]]] = {}
    for source in sources:
        for name, either in source.either.items():
            known = result.setdefault(name, {})
            for value, classes in either.items():
                if known.setdefault(value, classes) != classes:
                    raise DataError(
                        f"task {name}: value {value} of its masks stands for other classes in one data set than in "
                        "another; change the value in one of them"
                    )
    return dict(result)


def labelled_groups(
    config: Config, split: Literal["train", "val"], *, data: Path | None = None
) -> list[tuple[tuple[str, ...], list[Labelled]]]:
    """(tasks, sources) for every group of sources; or all tasks on the folder `data`, which need not label all of them.
    DataError where a source's classes are not the config's.
    """
    if data is not None:
        tasks = {task.name: task for task in config.tasks}
        folder = FolderSettings(kind="folder", path=str(data.resolve()))
        return [(tuple(tasks), [Labelled(folder, tasks, partly=True)])]
    return [(group.tasks, labelled(config, group)) for group in config.data_groups(split)]


def collate(samples: Sequence[Sample], either: Mapping[str, Either] | None = None) -> Batch:
    """A batch of samples of one size that label the same tasks. `either`: see `TaskDataset.either`."""
    first = samples[0]
    pictures = torch.from_numpy(
        np.stack([np.ascontiguousarray(sample.picture.transpose(2, 0, 1)) for sample in samples])
    )
    boxes = {task: [_targets(sample.boxes[task]) for sample in samples] for task in first.boxes}
    masks = {
        task: MaskTargets(
            torch.from_numpy(np.stack([sample.masks[task] for sample in samples])), (either or {}).get(task, {})
        )
        for task in first.masks
    }
    return Batch((*first.boxes, *first.masks), pictures, boxes, masks)


def _targets(boxes: Boxes) -> BoxTargets:
    corners, classes, ignore = (torch.from_numpy(values) for values in (boxes.boxes, boxes.classes, boxes.ignore))
    return BoxTargets(corners, classes, ignore, boxes.unlabelled)
