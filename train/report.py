"""What a validation leaves in a folder beside its numbers: curves, confusion, and the pictures that went worst."""

import heapq
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from configs.schema import IGNORE_LABEL, Config
from runtime.predict import Prediction
from train.data.draw import Tiles, write_mosaic
from train.data.samples import Boxes, Either, Sample
from train.gallery import beside, found_as_sample, of_tasks
from train.metrics import BoxMetric, PixelMetric
from train.plots import plot_confusion, plot_precision_recall

WORST = 6  # pictures of every task
MATCHED = 0.5  # least IoU of a box that is found


class Worst:
    """The pictures in which each task went worst: by F1 of its boxes at IoU 0.50 and score 0.3, or by its mean IoU."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._kept: dict[str, list[tuple[float, int, Tiles]]] = {task.name: [] for task in config.tasks}
        self._count = itertools.count()

    def add(self, sample: Sample, prediction: Prediction, names: Sequence[str], either: Mapping[str, Either]) -> None:
        """One picture, labelled for the tasks `names`."""
        labels = of_tasks(sample, names)
        found = found_as_sample(sample, prediction, labels)
        for name in (*labels.boxes, *labels.masks):
            quality = self._quality(name, labels, found, either.get(name, {}))
            kept = self._kept[name]
            if quality is None or (len(kept) == WORST and -quality <= kept[0][0]):
                continue
            row = beside(sample, prediction, [name], self._config, either)
            heapq.heappush(kept, (-quality, next(self._count), row))
            if len(kept) > WORST:
                heapq.heappop(kept)

    def write(self, folder: Path) -> None:
        """A mosaic for every task, the worst picture first: labels at the left, predictions at the right."""
        for name, kept in self._kept.items():
            if kept:
                rows = [row for _, _, row in sorted(kept, key=lambda entry: (-entry[0], entry[1]))]
                write_mosaic(folder / f"worst_{name}.jpg", rows, [self._config.task(name)])

    def _quality(self, name: str, labels: Sample, found: Sample, either: Either) -> float | None:
        if name in labels.boxes:
            return box_f1(labels.boxes[name], found.boxes[name])
        classes = [entry.name for entry in self._config.task(name).classes]
        metric = PixelMetric(classes, IGNORE_LABEL)
        metric.add(labels.masks[name], found.masks[name], either)
        value = metric.result()["miou"]
        return None if value is None else float(value) / 100


def box_f1(truth: Boxes, found: Boxes) -> float | None:
    """2 TP / (2 TP + FP + FN) of one picture, boxes found in the order given; None where nothing is labelled or found.

    What is found of unlabelled classes, or of ignored boxes, does not count.
    """
    free = ~truth.ignore
    right = wrong = 0
    for box, index in zip(found.boxes, found.classes, strict=True):
        overlaps = iou_with(truth.boxes, box) * (truth.classes == index)
        best = int(np.argmax(np.where(free, overlaps, -1))) if free.any() else -1
        if best >= 0 and overlaps[best] >= MATCHED:
            right, free[best] = right + 1, False
        elif not (overlaps[truth.ignore] >= MATCHED).any() and index not in truth.unlabelled:
            wrong += 1
    counted = 2 * right + wrong + int(free.sum())
    return 2 * right / counted if counted else None


def iou_with(boxes: npt.NDArray[np.float32], box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IoU (n,) of boxes (n, 4) with one."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    inter = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    result: npt.NDArray[np.float32] = inter / np.maximum(areas - inter, 1e-9)
    return result


def write_report(folder: Path, config: Config, metrics: Mapping[str, BoxMetric | PixelMetric], worst: Worst) -> None:
    """PR curves, confusion matrices and the worst pictures of every task that is labelled."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, metric in metrics.items():
        if isinstance(metric, PixelMetric):
            if metric.counts.any():
                classes = [entry.name for entry in config.task(name).classes]
                plot_confusion(metric.counts, classes, folder / f"confusion_{name}.png", name)
        elif curves := metric.curves():
            plot_precision_recall(curves, folder / f"precision_recall_{name}.png", name)
    worst.write(folder)
