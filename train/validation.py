"""Validation pictures at their original size with the labels of a group of tasks, for metrics."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from configs.schema import Config
from configs.task import FolderSource
from train.data.dataset import Labelled, joined
from train.data.samples import Either, Sample


class Pictures:
    """The samples of several sources one after the other, the first `limit` of them, made when asked for."""

    def __init__(self, sources: Sequence[Labelled], limit: int | None) -> None:
        self._sources = sources
        count = sum(len(source) for source in self._sources)
        self._count = count if limit is None else min(limit, count)

        names = {name for source in sources for name in source.either}
        self.either: Mapping[str, Either] = {
            name: joined([source.either.get(name, {}) for source in sources], name) for name in names
        }

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
    """(tasks, pictures) for every group of tasks with equal validation data; or all tasks on the folder `data`, which
    need not label all of them. DataError where a source's classes are not the config's.
    """
    tasks = {task.name: task for task in config.tasks}
    if data is not None:
        source = FolderSource(kind="folder", path=str(data.resolve()))
        return [(tuple(tasks), Pictures([Labelled(source, tasks, partly=True)], limit))]
    groups = []
    for entry, names in config.data_groups():
        own = {name: tasks[name] for name in names}
        groups.append((names, Pictures([Labelled(source, own) for source in entry.val], limit)))
    return groups
