"""Validation pictures at their original size with the labels of a group of tasks, for metrics.

From `train.data.dataset` it takes `open_source(source) -> Sequence[Sample]` for a scenes or folder source, a `Sample`
having `picture` uint8 (h, w, 3) RGB, `boxes` {task: Boxes(boxes (n, 4) x1 y1 x2 y2, classes (n,), ignore (n,))} and
`masks` {task: uint8 (h, w), 255 = ignore}, the tasks being those that the source labels.
"""

from collections.abc import Iterator
from pathlib import Path

from configs.schema import Config
from configs.task import FolderSource
from train.data.dataset import Sample, open_source

Labelled = Sample


class Pictures:
    """The samples of several sources one after the other, the first `limit` of them, made when asked for."""

    def __init__(self, sources: tuple[object, ...], limit: int | None) -> None:
        self._sources = [open_source(source) for source in sources]
        count = sum(len(source) for source in self._sources)
        self._count = count if limit is None else min(limit, count)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        left = self._count
        for source in self._sources:
            for index in range(min(left, len(source))):
                yield source[index]
            left -= min(left, len(source))


def validation_sets(
    config: Config, *, data: Path | None = None, limit: int | None = None
) -> list[tuple[tuple[str, ...], Pictures]]:
    """(tasks, pictures) for every group of tasks with equal validation data; all tasks on `data` if it is given."""
    if data is not None:
        source = FolderSource(kind="folder", path=str(data.resolve()))
        return [(tuple(task.name for task in config.tasks), Pictures((source,), limit))]
    return [(names, Pictures(entry.val, limit)) for entry, names in config.data_groups()]
