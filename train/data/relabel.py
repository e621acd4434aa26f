"""Masks for a task that no data set labels, taken from what sets say of another task: see `relabel` of a config."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from configs.task import DetectionTask, Relabel, SegmentationTask
from train.data.classes import IGNORE, SEGMENTATION_CLASSES
from train.data.errors import DataError
from train.data.samples import Sample, Source, TaskLabels


class Relabelled:
    """A source with the masks of further tasks, made from its own. One that it has itself stays as it is.

    DataError where a config names classes that the source's task does not have.
    """

    def __init__(self, source: Source, tasks: Mapping[str, DetectionTask | SegmentationTask], where: str) -> None:
        self._source = source
        self._tables: dict[str, tuple[str, NDArray[np.uint8]]] = {}
        made: dict[str, TaskLabels] = {}
        for name, task in tasks.items():
            relabel = getattr(task, "relabel", None)
            if relabel is None or name in source.labels or relabel.task not in source.labels:
                continue
            names = tuple(entry.name for entry in task.classes)
            self._tables[name] = relabel.task, _table(relabel, names, source.labels[relabel.task], f"{where}: {name}")
            made[name] = TaskLabels(names)
        self.labels: Mapping[str, TaskLabels] = {**source.labels, **made}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        made = {name: table[sample.masks[theirs]] for name, (theirs, table) in self._tables.items()}
        return Sample(sample.picture, sample.boxes, {**sample.masks, **made})


def _table(relabel: Relabel, names: tuple[str, ...], labels: TaskLabels, where: str) -> NDArray[np.uint8]:
    """uint8[256]: the class of a pixel by the value that their mask has there."""
    theirs = labels.classes or SEGMENTATION_CLASSES.get(relabel.task)
    if theirs is None:
        raise DataError(f"{where}: relabel.task: the classes of {relabel.task} have no names here; use another task")
    becomes = dict.fromkeys(theirs, 0)
    for name, sources in relabel.classes.items():
        for entry in sources:
            if entry not in becomes:
                raise DataError(
                    f"{where}: relabel.classes.{name}: {entry!r} is no class of {relabel.task}; it has "
                    f"{', '.join(theirs)}"
                )
            becomes[entry] = names.index(name)
    table = np.full(256, IGNORE, np.uint8)
    table[: len(theirs)] = list(becomes.values())
    for value, several in labels.either.items():
        of = {becomes[entry] for entry in several}
        table[value] = of.pop() if len(of) == 1 else IGNORE  # no one knows whether it is this or that
    return table
