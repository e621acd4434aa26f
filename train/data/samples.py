"""What a data set consists of: pictures with the labels of the tasks that the set labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Row = tuple[float, float, float, float, int, bool]  # x1, y1, x2, y2, class, ignore


@dataclass(frozen=True)
class Boxes:
    """Boxes of one task in one picture: boxes (n, 4) float32 x1, y1, x2, y2 in pixels, classes (n,) int64, ignore (n,)
    bool.

    An ignored box shows something that is neither to be found nor an error if found: mostly hidden, cut off, or tiny.
    `unlabelled` are the classes that the data set does not label: nothing is known of them anywhere in the picture.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    unlabelled: tuple[int, ...] = ()

    @staticmethod
    def of(rows: Sequence[Row], unlabelled: tuple[int, ...] = ()) -> "Boxes":
        """From rows (x1, y1, x2, y2, class, ignore)."""
        corners = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
        classes = np.array([row[4] for row in rows], np.int64)
        return Boxes(corners, classes, np.array([row[5] for row in rows], np.bool_), unlabelled)


@dataclass(frozen=True)
class TaskLabels:
    """What a data set says of a task: the names of its classes (None: a folder of masks, which hold bare indices).

    `unlabelled` are classes of a detection task that it does not label. `either` maps values of a mask to the names of
    two or more classes: such a pixel is one of them, which one is not known.
    """

    classes: tuple[str, ...] | None
    unlabelled: tuple[str, ...] = ()
    either: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


Either = Mapping[int, tuple[int, ...]]  # values of a mask: the classes that the pixel may be of


@dataclass(frozen=True)
class Sample:
    """Picture (h, w, 3) uint8 RGB; per labelled detection task its boxes, per labelled segmentation task its mask (h,
    w) uint8, 255 ignored; what values of a mask mean that stand for several classes is said once for a data set.
    """

    picture: NDArray[np.uint8]
    boxes: Mapping[str, Boxes]
    masks: Mapping[str, NDArray[np.uint8]]

    @property
    def bytes(self) -> int:
        """Memory that the pixels take."""
        return self.picture.nbytes + sum(mask.nbytes for mask in self.masks.values())


class Source(Protocol):
    """A sequence of samples, made when asked for, with the same labels for all of them."""

    @property
    def labels(self) -> Mapping[str, TaskLabels]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
