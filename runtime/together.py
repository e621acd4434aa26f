"""Several models on one picture, such as resize for what is near and crop for what is far: one prediction of all.

Boxes are compared in the picture's pixels, since each model sees a window of its own. An object that two models find
is one box: the surer one. A model that sees only a part of an object, at the edge of its window, gives way to one that
sees all of it. Masks of a task that several models have come from the one that sees the pixel largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.errors import UsageError
from runtime.geometry import UNSEEN, Placement
from runtime.image import Picture
from runtime.predict import Detection, Prediction, Predictor, select_tasks
from runtime.schema import DetectionTask, Task

NMS_UNIT = 256  # nms_threshold is an IoU in these parts
# A box that comes so close to the window's edge may go on behind it: pixels of the network's input, or, since the error
# of an edge grows with the box, this share of its side.
EDGE, EDGE_SHARE = 2.0, 0.03
INSIDE = 0.5  # share of a part's area that lies in the whole object


@dataclass(frozen=True)
class _Found:
    """A box of the model `source`; `cut`: it ends where the model's window does, and the picture does not."""

    detection: Detection
    source: int
    cut: bool


class PredictorsTogether:
    """Predictors on the same picture, their results merged. The tasks are those of all, each named once; `only` names
    the ones wanted, and a model that has none of them does not run.

    UsageError if a task that two models have has other classes in each, or if there is no task of a name.
    """

    def __init__(self, predictors: Sequence[Predictor], only: Sequence[str] | None = None) -> None:
        self.tasks = select_tasks(_all_tasks(predictors, only), only)
        wanted = [predictor.restricted([task.name for task in self.tasks]) for predictor in predictors]
        self.predictors = tuple(predictor for predictor in wanted if predictor.tasks)

    def twins(self, count: int) -> "list[PredictorsTogether]":
        """Others like this one, `count` in all, each for a thread of its own."""
        every = zip(*(predictor.twins(count) for predictor in self.predictors), strict=True)
        return [PredictorsTogether(predictors) for predictors in every]

    def __call__(self, picture: Picture) -> Prediction:
        """What all of them find in `picture`, RGB uint8 (h, w, 3); see `Predictor`."""
        predictions = [predictor(picture) for predictor in self.predictors]
        placements = [Placement.of(predictions[0].picture_hw, predictor.geometry) for predictor in self.predictors]
        found = [
            _Found(detection, source, is_cut(detection.box, placement))
            for source, (prediction, placement) in enumerate(zip(predictions, placements, strict=True))
            for detection in prediction.detections
        ]
        detections: list[Detection] = []
        for task in self.tasks:
            if isinstance(task, DetectionTask):
                detections += _merged([entry for entry in found if entry.detection.task == task.name], task)
        seconds = {part: sum(entry.seconds[part] for entry in predictions) for part in predictions[0].seconds}
        return Prediction(predictions[0].picture_hw, tuple(detections), _masks(predictions, placements), seconds)

    def window(self, picture_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """The smallest that holds those of all; see `PicturePredictor`."""
        lefts, tops, rights, bottoms = zip(*(one.window(picture_hw) for one in self.predictors), strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)


def _all_tasks(predictors: Sequence[Predictor], only: Sequence[str] | None) -> tuple[Task, ...]:
    """Of all predictors. Those of one name must agree if they are wanted."""
    tasks: dict[str, Task] = {}
    for task in (task for predictor in predictors for task in predictor.tasks):
        known = tasks.setdefault(task.name, task)
        wanted = only is None or task.name in only
        if wanted and _meaning(known) != _meaning(task):
            raise UsageError(
                f"the models' tasks '{task.name}' differ: {_meaning(known)} and {_meaning(task)}; "
                "give models of the same task, or leave it out with --tasks"
            )
    return tuple(tasks.values())


def _meaning(task: Task) -> str:
    """What two models must agree on; colours are those of the first."""
    return f"{task.kind} of {', '.join(entry.name for entry in task.classes)}"


def is_cut(box: tuple[float, float, float, float], placement: Placement) -> bool:
    """Whether the box reaches an edge of the window that lies within the picture."""
    vertical, horizontal = placement.scale
    left, top, right, bottom = placement.window
    # in integers: an edge of the picture itself must not count as one within it by a rounding error
    (rows, columns), (height, width) = placement.valid_hw, placement.scaled_hw
    beside = max(EDGE * horizontal, EDGE_SHARE * (box[2] - box[0]))
    above = max(EDGE * vertical, EDGE_SHARE * (box[3] - box[1]))
    return (
        (placement.left > 0 and box[0] < left + beside)
        or (placement.top > 0 and box[1] < top + above)
        or (placement.left + columns < width and box[2] > right - beside)
        or (placement.top + rows < height and box[3] > bottom - above)
    )


def _merged(found: Sequence[_Found], task: DetectionTask) -> list[Detection]:
    """One box for each object, in the order of scores. Non-maximum suppression within a class at the task's
    `nms_threshold`, that of the first model which has the task: what is wholly seen goes first, by score, then what is
    cut, by size. A cut box also gives way to another model's that most of it lies in. Whatever margin a model was built
    with, no two boxes overlap by more than the threshold.
    """
    kept: list[_Found] = []
    for entry in sorted(found, key=_rank):
        rivals = [other for other in kept if other.detection.class_index == entry.detection.class_index]
        if not rivals:
            kept.append(entry)
            continue
        iou, inside = _overlaps(entry.detection.box, np.array([other.detection.box for other in rivals]))
        others = np.array([entry.cut and other.source != entry.source for other in rivals])
        if not ((iou > task.nms_threshold / NMS_UNIT) | (others & (inside > INSIDE))).any():
            kept.append(entry)
    return sorted((entry.detection for entry in kept), key=lambda detection: -detection.score)


def _rank(entry: _Found) -> tuple[bool, float, float]:
    x1, y1, x2, y2 = entry.detection.box
    return entry.cut, -(x2 - x1) * (y2 - y1) if entry.cut else 0.0, -entry.detection.score


def _overlaps(
    box: tuple[float, float, float, float], others: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of a box with others (n, 4): IoU, and the share of the box's own area that lies in the other."""
    widths = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    heights = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    common = widths.clip(0) * heights.clip(0)
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return common / (area + areas - common), common / area


def _masks(predictions: Sequence[Prediction], placements: Sequence[Placement]) -> dict[str, npt.NDArray[np.uint8]]:
    """By task; where several models see a pixel, the one that shows it largest says its class."""
    masks: dict[str, npt.NDArray[np.uint8]] = {}
    coarsest_first = sorted(range(len(placements)), key=lambda index: -placements[index].scale[1])
    for index in coarsest_first:
        for name, mask in predictions[index].masks.items():
            np.copyto(masks.setdefault(name, mask.copy()), mask, where=mask != UNSEEN)
    return masks
