"""What all converters share: a set of pictures with labels to be read, and the mapping to the six tasks' classes.

A pixel whose class the set does not tell from another one gets a value of `EITHER`, one of which it knows nothing 255.
A class of a detection task that the set does not label is named as such, so that no picture of it counts as
background.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.image import PICTURE_SUFFIXES
from train.data.classes import DETECTION_CLASSES
from train.data.errors import DataError
from train.data.samples import Row, TaskLabels

TOLERANCE = 1.0  # pixels that a box may lie outside its picture, for sets that count from 1

# Values of masks that stand for several classes, the same in all converted sets; the first one is what metrics show.
ROAD_OR_MARKING, BUILDING_OR_FENCE = 254, 253  # of seg_default
ANY_LINE, NONE_OR_OTHER_MARKING = 254, 253  # of seg_lane
EITHER: dict[str, dict[int, tuple[str, ...]]] = {
    "seg_default": {ROAD_OR_MARKING: ("road", "lane marking"), BUILDING_OR_FENCE: ("building", "fence")},
    "seg_lane": {
        ANY_LINE: ("solid line", "dashed line"),
        NONE_OR_OTHER_MARKING: ("background", "other road marking"),
    },
}

VEHICLE_BOX, SIGN_BOX = ("det_vehicle_sign", 0), ("det_vehicle_sign", 1)
CYCLIST_BOX, LIGHT_BOX = ("det_cyclist_light", 0), ("det_cyclist_light", 1)
PERSON_BOX = ("det_person", 0)
Place = tuple[str, int]  # a detection task, and the index of one of its classes


@dataclass
class Labels:
    """Labels of one picture: rows of boxes by task, masks uint8 (h, w) by task."""

    boxes: dict[str, list[Row]] = field(default_factory=dict)
    masks: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def add_box(self, place: Place, corners: Sequence[float], *, ignore: bool = False) -> None:
        """Notes a box x1, y1, x2, y2 in pixels."""
        task, index = place
        x1, y1, x2, y2 = corners
        self.boxes.setdefault(task, []).append((x1, y1, x2, y2, index, ignore))


@dataclass(frozen=True)
class Entry:
    """A picture to convert: `stem` is its name in the new set, `read` makes its labels, given its (h, w)."""

    stem: str
    file: Path
    read: Callable[[tuple[int, int]], Labels]


@dataclass(frozen=True)
class ForeignSet:
    """A set to convert. `problems` are what is wrong with it as a whole, a line each that names the file; `left_out`
    says which of its pictures are no entries though nothing is wrong with them.
    """

    labels: Mapping[str, TaskLabels]
    entries: Sequence[Entry]
    problems: Sequence[str] = ()
    left_out: str = ""


def box_labels(places: Iterable[Place]) -> dict[str, TaskLabels]:
    """The tasks of these classes; their other classes are unlabelled."""
    known: dict[str, set[int]] = {}
    for task, index in sorted(places):
        known.setdefault(task, set()).add(index)
    return {
        task: TaskLabels(
            DETECTION_CLASSES[task],
            tuple(name for index, name in enumerate(DETECTION_CLASSES[task]) if index not in indices),
        )
        for task, indices in known.items()
    }


def mask_labels(task: str, values: Iterable[int]) -> dict[str, TaskLabels]:
    """A segmentation task whose masks hold these values."""
    either = EITHER[task]
    return {task: TaskLabels(None, either={value: either[value] for value in sorted({*values} & {*either})})}


def checked_box(corners: Sequence[float], hw: tuple[int, int], where: str) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 cut to the picture. DataError where that leaves nothing, or it lies too far outside."""
    height, width = hw
    x1, y1, x2, y2 = (float(edge) for edge in corners)
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
        raise DataError(f"{where}: box {x1:g}, {y1:g} to {x2:g}, {y2:g} has no area")
    if min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
        raise DataError(
            f"{where}: box {x1:g}, {y1:g} to {x2:g}, {y2:g} is not within the picture of {width} x {height}"
        )
    cut = max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise DataError(
            f"{where}: box {x1:g}, {y1:g} to {x2:g}, {y2:g} is not within the picture of {width} x {height}"
        )
    return cut


def pictures_by_stem(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Pictures below a folder whose stems end in `suffix`, by the stem without it. DataError where there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURE_SUFFIXES and path.stem.endswith(suffix):
            stem = path.stem.removesuffix(suffix)
            if stem in found:
                raise DataError(f"{path}: {found[stem]} has the same name, and would share its labels; rename one")
            found[stem] = path
    if not found:
        raise DataError(f"{folder}: holds no pictures{f' named *{suffix}.*' if suffix else ''}")
    return found


def paired(
    pictures: Mapping[str, Path], labels: Mapping[str, Path], read: Callable[[Path, tuple[int, int]], Labels]
) -> tuple[list[Entry], list[str]]:
    """An entry for each stem that both have, whose labels `read` makes of their file and the picture's (h, w); a line
    for each that only one has.
    """
    problems = [f"{pictures[stem]}: has no labels" for stem in sorted(pictures.keys() - labels.keys())]
    problems += [f"{labels[stem]}: its picture is not there" for stem in sorted(labels.keys() - pictures.keys())]
    stems = sorted(pictures.keys() & labels.keys())
    return [Entry(stem, pictures[stem], partial(read, labels[stem])) for stem in stems], problems
