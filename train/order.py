"""Which picture comes when: a pure function of seed, step and iteration, so a resumed run needs no loader state."""

from collections.abc import Iterator

import numpy as np


class SampleOrder:
    """The order of `count` pictures in batches of `batch_size`, for process `rank` of `world` (each gets its share).

    Every pass over the data is a new shuffle: chunks of `chunk` neighbouring pictures in random order, and the pictures
    of each chunk in random order, so that reading stays local. Batches run on over the ends of passes.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: tuple[int, ...], chunk: int, rank: int = 0, world: int = 1
    ) -> None:
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._chunk = chunk
        self._rank = rank
        self._world = world
        self._passes: dict[int, np.ndarray] = {}

    def batch(self, iteration: int) -> list[tuple[int, int]]:
        """(picture, seed of its augmentation) for each place of this process's batch."""
        first = (iteration * self._world + self._rank) * self._batch_size
        positions = range(first, first + self._batch_size)
        return [(self._picture(position), self._draw(position)) for position in positions]

    def batches(self, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """The batches of iterations start to stop - 1."""
        for iteration in range(start, stop):
            yield self.batch(iteration)

    def _picture(self, position: int) -> int:
        number, place = divmod(position, self._count)
        if number not in self._passes:
            if len(self._passes) > 1:
                self._passes.clear()  # only neighbouring passes meet in one batch
            self._passes[number] = self._shuffle(number)
        return int(self._passes[number][place])

    def _shuffle(self, number: int) -> np.ndarray:
        rng = np.random.default_rng((*self._seed, number))
        chunks = [
            np.arange(first, min(first + self._chunk, self._count)) for first in range(0, self._count, self._chunk)
        ]
        return np.concatenate([rng.permutation(chunks[index]) for index in rng.permutation(len(chunks))])

    def _draw(self, position: int) -> int:
        return int(np.random.SeedSequence((*self._seed, position)).generate_state(1)[0])
