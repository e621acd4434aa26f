"""What a data set consists of: pictures with the labels of the tasks that the set labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Boxes:
    """Boxes of one task in one picture: boxes (n, 4) float32 x1, y1, x2, y2 in pixels, classes (n,) int64, ignore (n,)
    bool.

    An ignored box shows something that is neither to be found nor an error if found: mostly hidden, cut off, or tiny.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    ignore: NDArray[np.bool_]

    @staticmethod
    def of(rows: Sequence[tuple[float, float, float, float, int, bool]]) -> "Boxes":
        """From rows (x1, y1, x2, y2, class, ignore)."""
        corners = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
        classes = np.array([row[4] for row in rows], np.int64)
        return Boxes(corners, classes, np.array([row[5] for row in rows], np.bool_))


@dataclass(frozen=True)
class Sample:
    """Picture (h, w, 3) uint8 RGB; per labelled detection task its boxes, per labelled segmentation task its mask (h,
    w) uint8, 255 ignored.
    """

    picture: NDArray[np.uint8]
    boxes: Mapping[str, Boxes]
    masks: Mapping[str, NDArray[np.uint8]]

    @property
    def bytes(self) -> int:
        """Memory that the pixels take."""
        return self.picture.nbytes + sum(mask.nbytes for mask in self.masks.values())


class Source(Protocol):
    """A sequence of samples, made when asked for. `classes`: class names per labelled task (segmentation on disk:
    unnamed, None).
    """

    @property
    def classes(self) -> Mapping[str, tuple[str, ...] | None]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
