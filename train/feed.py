"""Batches of every group of sources, loaded in the background, in the order that `train.order` fixes."""

import math
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset

from configs.schema import Config
from runtime.interruption import leave_to_the_parent
from train.data.dataset import Batch, TaskDataset, collate, joined
from train.data.errors import DataError
from train.data.samples import Either
from train.loop import Batches
from train.order import SampleOrder

PREFETCH = 2


class Feed:
    """The training pictures of a step, or with `pipeline_test` the first validation pictures."""

    def __init__(self, config: Config, step: int, *, pipeline_test: bool, seed: int, fabric: Fabric) -> None:
        self._config = config
        self._fabric = fabric
        self._seed = (seed, step)
        groups = config.data_groups("val" if pipeline_test else "train")
        self._shares = [group.share for group in groups]
        self._datasets = [TaskDataset(config, group) for group in groups]
        joined(self._datasets)
        limit = config.pipeline_test.pictures if pipeline_test else None
        self._counts = [min(len(dataset), limit or len(dataset)) for dataset in self._datasets]

    def iterations_per_epoch(self, batch_size: int) -> int:
        """Iterations in which the group that takes longest is gone through once."""
        sizes = self._sizes(batch_size)
        world = self._fabric.world_size
        return max(math.ceil(count / (size * world)) for count, size in zip(self._counts, sizes, strict=True))

    def batches(self, batch_size: int) -> Batches:
        """Function of (first, last + 1) iteration: per iteration a batch of every group, its share of `batch_size`."""

        def iterate(start: int, stop: int) -> Iterator[list[Batch]]:
            loaders = [
                self._loader(index, dataset, size, start, stop)
                for index, (dataset, size) in enumerate(zip(self._datasets, self._sizes(batch_size), strict=True))
            ]
            with _one_opencv_thread():
                iterators = [iter(loader) for loader in loaders]
            try:
                for batches in zip(*iterators, strict=True):
                    for batch in batches:
                        if isinstance(batch, DataError):
                            raise batch
                    yield self._fabric.to_device(list(batches))
            except BaseException as error:  # a second Ctrl-C, too
                traceback.clear_frames(error.__traceback__)  # torch's have the iterators among their variables
                raise
            finally:  # their end is that of the loading processes, for which the program would wait forever
                iterators.clear()

        return iterate

    def _sizes(self, batch_size: int) -> list[int]:
        return [max(1, round(share * batch_size)) for share in self._shares]

    def _loader(self, index: int, dataset: TaskDataset, batch_size: int, start: int, stop: int) -> DataLoader[Any]:
        order = SampleOrder(
            self._counts[index],
            batch_size,
            seed=(*self._seed, index),
            chunk=self._config.common.shuffle_chunk_size,
            rank=self._fabric.global_rank,
            world=self._fabric.world_size,
        )
        return DataLoader(
            _Careful(dataset),
            batch_sampler=_Span(order, start, stop),
            num_workers=self._config.common.load_threads,
            prefetch_factor=PREFETCH,
            collate_fn=partial(_collate, either=dataset.either),
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # not the global one, which a resumed run has just set to where it was
        )


class _Careful(Dataset[Any]):
    """A data set that returns a DataError: raised in a loading process, torch would bury it in a traceback's text."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._dataset[key]
        except DataError as error:
            return error


def _collate(samples: list[Any], either: Mapping[str, Either]) -> Any:
    return next((sample for sample in samples if isinstance(sample, DataError)), None) or collate(samples, either)


class _Span:
    """The batches of a span of iterations, as a DataLoader wants its batch sampler."""

    def __init__(self, order: SampleOrder, start: int, stop: int) -> None:
        self._order, self._start, self._stop = order, start, stop

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._order.batches(self._start, self._stop)

    def __len__(self) -> int:
        return self._stop - self._start


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """For the forks within: loading processes share the cores already. And a fork copies OpenCV's pool without its
    threads: if this process has used it, a loading process would wait for them forever.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C, and often a request to end, reaches all processes of the group: the main one decides."""
    leave_to_the_parent(signal.SIGINT, signal.SIGTERM)
