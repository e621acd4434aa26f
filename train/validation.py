"""Validation pictures at their original size with the labels of a group of tasks, for metrics."""

import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from configs.schema import Config
from train.data.dataset import Labelled, joined, labelled_groups
from train.data.samples import Sample


class Pictures:
    """The samples of several sources one after the other, the first `limit` of them, made when asked for."""

    def __init__(self, sources: Sequence[Labelled], limit: int | None) -> None:
        self._sources = sources
        count = sum(len(source) for source in self._sources)
        self._count = count if limit is None else min(limit, count)
        self.either = joined(sources)

    def __len__(self) -> int:
        return self._count

    def spread(self, count: int) -> Iterator[Sample]:
        """That many of them, at equal distances: neighbours are often frames of one drive."""
        starts = list(accumulate((len(source) for source in self._sources), initial=0))
        for place in np.linspace(0, self._count - 1, min(count, self._count)).round().astype(int).tolist():
            number = bisect.bisect_right(starts, place) - 1
            yield self._sources[number][place - starts[number]]

    def __iter__(self) -> Iterator[Sample]:
        left = self._count
        for source in self._sources:
            for index in range(min(left, len(source))):
                yield source[index]
            left -= min(left, len(source))


def validation_sets(
    config: Config, *, data: Path | None = None, limit: int | None = None
) -> list[tuple[tuple[str, ...], Pictures]]:
    """(tasks, pictures) for every group of validation sources that serve the same tasks; or all tasks on the folder
    `data`, which need not label all of them. DataError where a source's classes are not the config's.
    """
    return [(names, Pictures(sources, limit)) for names, sources in labelled_groups(config, "val", data=data)]
