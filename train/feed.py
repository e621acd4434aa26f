"""Batches for every group of tasks with equal data, loaded in the background, in the order that `train.order` fixes."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Dataset

from configs.schema import Config
from train.data.dataset import Batch, TaskDataset, collate
from train.data.errors import DataError
from train.data.samples import Either
from train.loop import Batches
from train.order import SampleOrder

PREFETCH = 2


class Feed:
    """The training pictures of a step, or with `pipeline_test` the first validation pictures.

    `pictures` is the size of the largest data set: what an epoch goes over.
    """

    def __init__(self, config: Config, step: int, *, pipeline_test: bool, seed: int, fabric: Fabric) -> None:
        self._config = config
        self._fabric = fabric
        self._seed = (seed, step)
        split = "val" if pipeline_test else "train"
        self._datasets = [TaskDataset(config, names, split=split) for _, names in config.data_groups()]
        limit = config.pipeline_test.pictures if pipeline_test else None
        self._counts = [min(len(dataset), limit or len(dataset)) for dataset in self._datasets]
        self.pictures = max(self._counts)

    def batches(self, batch_size: int) -> Batches:
        """Function of (first, last + 1) iteration: per iteration one batch of `batch_size` for every group of tasks."""

        def iterate(start: int, stop: int) -> Iterator[list[Batch]]:
            loaders = [
                self._loader(index, dataset, batch_size, start, stop) for index, dataset in enumerate(self._datasets)
            ]
            with _one_opencv_thread():
                iterators = [iter(loader) for loader in loaders]
            for batches in zip(*iterators, strict=True):
                for batch in batches:
                    if isinstance(batch, DataError):
                        raise batch
                yield self._fabric.to_device(list(batches))

        return iterate

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
    """Ctrl-C reaches all processes of the terminal: the main one decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
