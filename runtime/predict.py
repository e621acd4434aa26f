"""From a picture to what was found in it: boxes and masks in the picture's own pixels, with any engine."""

import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import numpy.typing as npt

from runtime.engine import CompiledEngine, Engine
from runtime.errors import UsageError
from runtime.geometry import Placement
from runtime.image import Picture, check_size
from runtime.schema import DetectionTask, InputGeometry, Task


@dataclass(frozen=True)
class Detection:
    """A box: `box` is x1, y1, x2, y2 in pixels of the picture, `score` in 0..1, `class_index` that within its task."""

    task: str
    class_name: str
    class_index: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Prediction:
    """All that was found in a picture of `picture_hw`.

    `detections` are ordered by task, then by score, highest first. `masks` has a class index per pixel for every
    segmentation task, uint8 of the picture's size, 255 where the network was not shown the picture. `seconds` tells the
    time of the parts "pre", "inference" and "post".
    """

    picture_hw: tuple[int, int]
    detections: tuple[Detection, ...]
    masks: dict[str, npt.NDArray[np.uint8]]
    seconds: dict[str, float] = field(default_factory=dict, compare=False)


class PicturePredictor(Protocol):
    """What finds the boxes and masks of its `tasks` in a picture: one model, or several together."""

    tasks: tuple[Task, ...]

    def __call__(self, picture: Picture) -> Prediction:
        """What is found in `picture`, RGB uint8 (h, w, 3) of any size."""
        ...

    def window(self, picture_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of what it looks at, in pixels of a picture of this size."""
        ...


class Predictor:
    """Prepares a picture for an engine and reads the engine's boxes and masks.

    `score_threshold` drops boxes below it (the model has dropped those below its own already); `tasks` names the tasks
    wanted, all of them by default; without `masks` there are boxes only. UsageError if there is no task of a name.
    """

    def __init__(
        self,
        engine: Engine,
        geometry: InputGeometry,
        tasks: Sequence[Task],
        *,
        score_threshold: float = 0.0,
        only: Sequence[str] | None = None,
        masks: bool = True,
    ) -> None:
        self.engine = engine
        self.geometry = geometry
        self.tasks = select_tasks(tasks, only)
        self.score_threshold = score_threshold
        self.masks = masks

    @classmethod
    def load(
        cls,
        library: str | os.PathLike[str],
        *,
        score_threshold: float = 0.0,
        only: Sequence[str] | None = None,
        masks: bool = True,
        threads: int | None = None,
    ) -> "Predictor":
        """The predictor of a compiled model, `library` being the path of its .so."""
        engine = CompiledEngine(library, threads)
        manifest = engine.manifest
        return cls(engine, manifest.input, manifest.tasks, score_threshold=score_threshold, only=only, masks=masks)

    def twins(self, count: int) -> "list[Predictor]":
        """This predictor of a compiled model and others like it, `count` in all, each for a thread of its own."""
        assert isinstance(self.engine, CompiledEngine)
        others = []
        for _ in range(count - 1):
            other = copy.copy(self)
            other.engine = self.engine.twin()
            others.append(other)
        return [self, *others]

    def restricted(self, only: Sequence[str]) -> "Predictor":
        """This predictor with those of its tasks that `only` names, which may be none."""
        other = copy.copy(self)
        other.tasks = tuple(task for task in self.tasks if task.name in only)
        return other

    def __call__(self, picture: Picture) -> Prediction:
        """What is found in `picture`, RGB uint8 (h, w, 3) of any size. ImageError if it is too small."""
        check_size((picture.shape[0], picture.shape[1]), "picture")
        start = time.perf_counter()
        placement = Placement.of((picture.shape[0], picture.shape[1]), self.geometry)
        network_input = placement.network_input(picture)
        prepared = time.perf_counter()
        outputs = self.engine.run(network_input, placement.valid_hw)
        inferred = time.perf_counter()
        detections: list[Detection] = []
        masks: dict[str, npt.NDArray[np.uint8]] = {}
        for task in self.tasks:
            if isinstance(task, DetectionTask):
                detections += self._detections(task, outputs[f"{task.name}.boxes"], placement)
            elif self.masks:
                masks[task.name] = placement.mask_to_picture(outputs[f"{task.name}.mask"][0], task.stride)
        seconds = {
            "pre": prepared - start,
            "inference": inferred - prepared,
            "post": time.perf_counter() - inferred,
        }
        return Prediction(placement.picture_hw, tuple(detections), masks, seconds)

    def window(self, picture_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """See `PicturePredictor`."""
        return Placement.of(picture_hw, self.geometry).window

    def _detections(self, task: DetectionTask, rows: npt.NDArray[np.int32], placement: Placement) -> list[Detection]:
        rows = rows[rows[:, 5] >= 0]
        boxes = placement.boxes_to_picture(rows[:, :4])
        found = []
        for (score_int8, index), edges in zip(rows[:, 4:].tolist(), boxes.tolist(), strict=True):
            score = task.sigmoid_table[score_int8 + 128]
            x1, y1, x2, y2 = edges
            # a box that lies wholly in the padding, or is thinner than nothing, shows nothing of the picture
            if score >= self.score_threshold and x2 > x1 and y2 > y1:
                found.append(Detection(task.name, task.classes[index].name, index, score, (x1, y1, x2, y2)))
        return found


def by_any(predictors: Sequence[PicturePredictor]) -> Callable[[Picture], Prediction]:
    """Predicts by one of them that is idle, in whichever thread: there must be one to a thread."""
    idle: SimpleQueue[PicturePredictor] = SimpleQueue()
    for predictor in predictors:
        idle.put(predictor)

    def predict(picture: Picture) -> Prediction:
        predictor = idle.get()
        try:
            return predictor(picture)
        finally:
            idle.put(predictor)

    return predict


def select_tasks(tasks: Sequence[Task], only: Sequence[str] | None) -> tuple[Task, ...]:
    """Those of `tasks` that `only` names, in the model's order; UsageError for a name that is not there."""
    if only is None:
        return tuple(tasks)
    names = [task.name for task in tasks]
    for name in only:
        if name not in names:
            raise UsageError(f"the model has no task '{name}'; it has: {', '.join(names)}")
    return tuple(task for task in tasks if task.name in only)
