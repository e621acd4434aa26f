"""The two metrics: COCO average precision of boxes, intersection over union of masks. All values are in percent.

A class that the data does not label has no value (None) and does not enter a mean: it is neither right nor wrong.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from train.data.samples import Either

Array = npt.NDArray[Any]
IOU_50 = 0  # index of the threshold 0.5 in COCO's list of thresholds
_NOWHERE = {"image_id": 1, "category_id": 1, "bbox": [-9.0, -9.0, 1.0, 1.0], "area": 1.0, "score": 0.0}
SIZES = ("small", "medium", "large")  # COCO's, of areas below 32², below 96² and above


class BoxMetric:
    """COCO mAP (IoU 0.50:0.95, at most 100 boxes a picture) and mAP at IoU 0.50 of one task."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._images: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(
        self,
        truth: Array,
        truth_class: Array,
        ignore: Array,
        found: Array,
        found_class: Array,
        score: Array,
        unlabelled: Sequence[int] = (),
    ) -> None:
        """One picture. `truth` (T, 4) and `found` (F, 4): x1, y1, x2, y2 in its pixels; classes are indices.

        `ignore` (T,) bool marks true boxes that count neither when found nor when missed (COCO's crowd). What is found
        of the classes `unlabelled` does not count.
        """
        known = ~np.isin(found_class, unlabelled)
        found, found_class, score = found[known], found_class[known], score[known]
        image = len(self._images) + 1
        self._images.append({"id": image})
        for box, index, crowd in zip(truth, truth_class, ignore, strict=True):
            entry = _entry(image, int(index), box)
            self._truth.append({**entry, "id": len(self._truth) + 1, "iscrowd": int(crowd), "ignore": int(crowd)})
        for box, index, value in zip(found, found_class, score, strict=True):
            self._found.append({**_entry(image, int(index), box), "score": float(value)})

    def extend(self, other: "BoxMetric") -> None:
        """Takes in another's pictures of the same task, behind its own."""
        before, boxes = len(self._images), len(self._truth)
        self._images += [{"id": entry["id"] + before} for entry in other._images]
        self._truth += [
            {**entry, "id": entry["id"] + boxes, "image_id": entry["image_id"] + before} for entry in other._truth
        ]
        self._found += [{**entry, "image_id": entry["image_id"] + before} for entry in other._found]

    def curves(self) -> dict[str, Array]:
        """Precision (101,) in percent at recalls of 0, 1, ... 100 percent, at IoU 0.50, by the class."""
        precision = self._precision()[0][IOU_50]
        return {name: 100 * precision[:, index] for index, name in enumerate(self._classes) if precision[0, index] > -1}

    def map50_by_size(self) -> dict[str, float | None]:
        """mAP50 of true boxes of each of COCO's SIZES, by their area in pixels; None where nothing is labelled."""
        of_sizes = self._precision()[1:, IOU_50].transpose(0, 2, 1)
        return {
            size: _mean([percent(values.mean()) for values in classes if (values > -1).any()])
            for size, classes in zip(SIZES, of_sizes, strict=True)
        }

    def result(self) -> dict[str, Any]:
        """{"map", "map50", "per_class": {name: {"map", "map50"}}}; None where nothing is labelled."""
        precision = self._precision()[0]
        per_class = {}
        for index, name in enumerate(self._classes):
            values = precision[:, :, index]
            labelled = bool((values > -1).any())
            per_class[name] = {
                "map": percent(values.mean()) if labelled else None,
                "map50": percent(values[IOU_50].mean()) if labelled else None,
            }
        return {
            "map": _mean([value["map"] for value in per_class.values()]),
            "map50": _mean([value["map50"] for value in per_class.values()]),
            "per_class": per_class,
        }

    def _precision(self) -> Array:
        """Precision by (all sizes and SIZES, IoU threshold, recall, class), -1 where nothing is labelled."""
        from faster_coco_eval import COCO, COCOeval_faster

        dataset = {
            "images": self._images,
            "categories": [{"id": index + 1, "name": name} for index, name in enumerate(self._classes)],
            "annotations": self._truth,
        }
        if not self._truth:
            return np.full((1 + len(SIZES), 10, 101, len(self._classes)), -1.0)
        found = self._found or [_NOWHERE]  # the library takes no empty list
        with contextlib.redirect_stdout(io.StringIO()):  # the library reports its own timing
            truth = COCO(dataset)
            evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
        return np.moveaxis(np.asarray(evaluation.eval["precision"])[..., -1], 3, 0)


class PixelMetric:
    """Intersection over union per class and its mean, over all pixels of all pictures of one task.

    With `lines` also F1 and IoU of all classes but the first, the background, taken as one.
    """

    def __init__(self, classes: Sequence[str], ignore_label: int, *, lines: bool = False) -> None:
        self._classes = tuple(classes)
        self._ignore = ignore_label
        self._lines = lines
        self.counts = np.zeros((len(classes), len(classes)), np.int64)  # pixels by [true class, found class]

    def add(self, truth: Array, found: Array, either: Either | None = None) -> None:
        """One picture: two class maps (h, w) of equal size. Pixels that one of them marks as none of the classes
        (ignored in the truth, not shown to the network) do not count.

        Values of `truth` in `either` stand for several classes. They count as the first of them, and are right where
        one of them was found.
        """
        size = len(self._classes)
        for value, classes in (either or {}).items():
            here = truth == value
            found = np.where(here & np.isin(found, classes), classes[0], found)
            truth = np.where(here, classes[0], truth)
        counted = (truth != self._ignore) & (found < size)
        pairs = truth[counted].astype(np.int64) * size + found[counted]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def extend(self, other: "PixelMetric") -> None:
        """Takes in another's pictures of the same task."""
        self.counts += other.counts

    def result(self) -> dict[str, Any]:
        """{"miou", "per_class": {name: {"miou"}}}, with lines also "line_f1" and "line_iou"; None for what no pixel is
        labelled as.
        """
        right = self.counts.diagonal()
        labelled = self.counts.sum(axis=1)
        union = labelled + self.counts.sum(axis=0) - right
        values = [percent(right[i] / union[i]) if labelled[i] else None for i in range(len(self._classes))]
        per_class = {name: {"miou": value} for name, value in zip(self._classes, values, strict=True)}
        result = {"miou": _mean(values), "per_class": per_class}
        return result | self._of_lines() if self._lines else result

    def _of_lines(self) -> dict[str, float | None]:
        """F1 = 2 TP / (2 TP + FP + FN) and IoU = TP / (TP + FP + FN) over pixels."""
        right, labelled = int(self.counts[1:, 1:].sum()), int(self.counts[1:].sum())
        wrong = int(self.counts[0, 1:].sum()) + int(self.counts[1:, 0].sum())
        if not labelled:
            return {"line_f1": None, "line_iou": None}
        return {"line_f1": percent(2 * right / (2 * right + wrong)), "line_iou": percent(right / (right + wrong))}


def percent(fraction: float) -> float:
    """A fraction in percent, not rounded: equal predictions give equal numbers to the last digit."""
    return float(fraction) * 100.0


def _entry(image: int, index: int, box: Array) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in box)
    width, height = x2 - x1, y2 - y1
    return {"image_id": image, "category_id": index + 1, "bbox": [x1, y1, width, height], "area": width * height}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
