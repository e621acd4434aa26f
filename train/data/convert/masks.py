"""Masks of other sets: reading them, looking their values or colours up in a table, boxes of their components."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.errors import DataError
from train.data.png import Pixels, decode_labels
from train.data.samples import Row

LEAST_PIXELS = 60  # of a component; a smaller one is a speck, or the part of something hidden
LEAST_SIDE = 4
Color = tuple[int, int, int]


def read_pixels(path: Path, hw: tuple[int, int]) -> Pixels:
    """A PNG as it is: (h, w), or RGB (h, w, 3) without an alpha channel. DataError if unreadable or not of size hw."""
    pixels = decode_labels(path.read_bytes()) if path.is_file() else None
    if pixels is None:
        raise DataError(f"{path}: cannot be read as a picture")
    if pixels.shape[:2] != hw:
        raise DataError(
            f"{path}: is {pixels.shape[0]} x {pixels.shape[1]} pixels (h x w), its picture {hw[0]} x {hw[1]}"
        )
    if pixels.ndim == 3:
        return pixels[:, :, 2::-1].copy()
    return pixels


def look_up(indices: Pixels, table: Mapping[int, int], path: Path) -> NDArray[np.uint8]:
    """The table's value for each index. DataError naming one that it does not have."""
    whole = np.full(np.iinfo(indices.dtype).max + 1, -1, np.int16)
    for index, value in table.items():
        whole[index] = value
    found = whole[indices]
    if (found < 0).any():
        raise DataError(f"{path}: value {int(indices[found < 0][0])} is none of this set's classes")
    return found.astype(np.uint8)


def indices_of(pixels: Pixels, colors: Sequence[Color], path: Path) -> NDArray[np.uint8]:
    """Which of the colours each pixel has. DataError naming one that is none of them."""
    if pixels.ndim != 3:
        raise DataError(f"{path}: is a grey picture; this set's masks are colours")
    packed = (pixels.astype(np.int64) * (1 << 32, 1 << 16, 1)).sum(axis=2)
    known = np.array([(r << 32) | (g << 16) | b for r, g, b in colors])
    order = np.argsort(known)
    place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
    found = order[place]
    wrong = known[found] != packed
    if wrong.any():
        raise DataError(f"{path}: colour {tuple(pixels[wrong][0].tolist())} is none of this set's classes")
    return found.astype(np.uint8)


def component_rows(area: NDArray[np.bool_], index: int) -> list[Row]:
    """A box around each connected part of `area`, specks ignored; objects that touch share one."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
    rows = []
    for x, y, width, height, pixels in stats[1:].tolist():
        speck = pixels < LEAST_PIXELS or min(width, height) < LEAST_SIDE
        rows.append((float(x), float(y), float(x + width), float(y + height), index, speck))
    return rows


def box_around(area: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of what is True."""
    rows, columns = (np.flatnonzero(area.any(axis=axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
