"""Labels drawn on their pictures, and mosaics of such pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from configs.task import DetectionTask, SegmentationTask
from runtime.draw import draw_legend
from train.data.errors import DataError
from train.data.samples import Either, Sample
from train.data.transforms import resize

TILE_WIDTH = 480
GREY: tuple[int, int, int] = (160, 160, 160)
STRIPE = 6  # pixels
Tasks = Mapping[str, DetectionTask | SegmentationTask]
Tiles = list[NDArray[np.uint8]]


def tiles_of(sample: Sample, tasks: Tasks, either: Mapping[str, Either]) -> Tiles:
    """Pictures of one size, side by side a row of a mosaic: all boxes on the picture, and every mask over it."""
    height, width = sample.picture.shape[:2]
    small = resize(sample, (max(1, round(height * TILE_WIDTH / width)), TILE_WIDTH))
    tiles = [draw_boxes(small, tasks)] if sample.boxes or not sample.masks else []
    for name, mask in small.masks.items():
        colors = [entry.color for entry in tasks[name].classes]
        tiles.append(draw_mask(small.picture, mask, colors, either.get(name, {})))
    return tiles


def draw_boxes(sample: Sample, tasks: Tasks) -> NDArray[np.uint8]:
    """The picture with all boxes in their classes' colours, ignored ones grey."""
    result = sample.picture.copy()
    for name, boxes in sample.boxes.items():
        for box, index, ignored in zip(boxes.boxes, boxes.classes.tolist(), boxes.ignore.tolist(), strict=True):
            x1, y1, x2, y2 = (round(edge) for edge in box.tolist())
            cv2.rectangle(result, (x1, y1), (x2, y2), GREY if ignored else tasks[name].classes[index].color, 1)
    return result


def draw_mask(
    picture: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    colors: Sequence[tuple[int, int, int]],
    either: Mapping[int, Sequence[int]],
) -> NDArray[np.uint8]:
    """The picture under its mask."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    painted = palette[mask]
    stripe = np.add.outer(np.arange(mask.shape[0]), np.arange(mask.shape[1])) // STRIPE
    for value, classes in either.items():
        here = mask == value
        painted[here] = palette[np.asarray(classes)[stripe % len(classes)]][here]
    return np.asarray(cv2.addWeighted(picture, 0.3, painted, 0.7, 0), np.uint8)


def write_mosaic(path: Path, rows: Sequence[Tiles], tasks: Sequence[Any]) -> None:
    """Writes rows of tiles one below the other, with a legend of the tasks."""
    joined = [np.concatenate(tiles, axis=1) for tiles in rows]
    width = max(row.shape[1] for row in joined)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in joined]
    whole = np.concatenate([*padded, draw_legend(width, tasks, 1.0)])
    done, data = cv2.imencode(".jpg", cv2.cvtColor(whole, cv2.COLOR_RGB2BGR))
    if not done:
        raise DataError(f"{path}: the mosaic cannot be encoded; give a smaller --count")
    data.tofile(path)
