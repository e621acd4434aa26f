"""Overlays: what was found, drawn on the picture. Sizes of lines and letters follow the picture's size."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from runtime.image import Picture
from runtime.predict import Detection, Prediction
from runtime.schema import SegmentationTask, Task

Color = tuple[int, int, int]

MASK_OPACITY = 0.45
BACKGROUND = "background"  # a class of this name is what is left over: it is not painted
FONT = cv2.FONT_HERSHEY_SIMPLEX
BLACK, WHITE, PANEL, CAPTION = (0, 0, 0), (255, 255, 255), (24, 26, 30), (150, 156, 166)


def draw_overlay(picture: Picture, prediction: Prediction, tasks: Sequence[Task]) -> Picture:
    """A copy of `picture` with masks, boxes and labels, and a legend of all classes below it: RGB uint8 (h + legend, w,
    3).

    The legend depends on the tasks and the width alone, so the frames of a video keep one size.
    """
    result = picture.copy()
    for task in tasks:
        if isinstance(task, SegmentationTask):
            _paint_mask(result, prediction.masks[task.name], task)
    unit = _unit(picture)
    colors = {(task.name, entry.name): entry.color for task in tasks for entry in task.classes}
    drawn = sorted((d for d in prediction.detections if (d.task, d.class_name) in colors), key=lambda d: d.score)
    for detection in drawn:
        _draw_box(result, detection, colors[detection.task, detection.class_name], unit)
    for detection in drawn:  # labels over all boxes, the surest on top
        _draw_label(result, detection, colors[detection.task, detection.class_name], unit)
    return np.concatenate([result, draw_legend(picture.shape[1], tasks, unit)])


def _unit(picture: Picture) -> float:
    """1 for a picture of 1000 pixels' diagonal; never so small that letters cannot be read."""
    height, width = picture.shape[:2]
    return max(0.6, float(np.hypot(height, width)) / 1000)


def _paint_mask(result: Picture, mask: npt.NDArray[np.uint8], task: SegmentationTask) -> None:
    """Blends the classes' colours into `result`, in place."""
    palette = np.zeros((256, 3), np.uint8)
    painted = np.zeros(256, bool)
    for index, entry in enumerate(task.classes):
        palette[index] = entry.color
        painted[index] = entry.name != BACKGROUND
    smooth = _smooth(mask, task.stride * max(1.0, mask.shape[1] / 1000))
    area = painted[smooth]
    blended = cv2.addWeighted(result, 1 - MASK_OPACITY, palette[smooth], MASK_OPACITY, 0)
    np.copyto(result, blended, where=area[..., None])


def _smooth(mask: npt.NDArray[np.uint8], radius: float) -> npt.NDArray[np.uint8]:
    """The mask with the steps of its coarse grid rounded off: every pixel takes the commonest class around it."""
    size = 2 * round(radius) + 1
    result, best = mask.copy(), np.zeros(mask.shape, np.uint8)
    for index in np.unique(mask):
        share = cv2.blur(((mask == index) * np.uint8(255)).astype(np.uint8), (size, size))
        won = share > best
        result[won] = index
        np.maximum(best, share, out=best)
    return result


def _draw_box(result: Picture, detection: Detection, color: Color, unit: float) -> None:
    x1, y1, x2, y2 = (round(edge) for edge in detection.box)
    line = max(1, round(2 * unit))
    cv2.rectangle(result, (x1, y1), (x2, y2), BLACK, line + 2, cv2.LINE_AA)  # a dark rim, seen on any ground
    cv2.rectangle(result, (x1, y1), (x2, y2), color, line, cv2.LINE_AA)


def _draw_label(result: Picture, detection: Detection, color: Color, unit: float) -> None:
    text = f"{detection.class_name} {detection.score:.2f}"
    scale, pad = 0.45 * unit, max(2, round(4 * unit))
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, 1)
    x1, y1 = round(detection.box[0]), round(detection.box[1])
    total = height + baseline + 2 * pad
    top = y1 - total if y1 >= total else y1  # above the box, or inside it at the picture's edge
    left = max(0, min(x1, result.shape[1] - width - 2 * pad))
    cv2.rectangle(result, (left, top), (left + width + 2 * pad, top + total), color, cv2.FILLED)
    _write(result, text, (left + pad, top + pad + height), scale, _ink(color))


def _ink(ground: Color) -> Color:
    """Black or white, whichever is read better on `ground`."""
    red, green, blue = ground
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE


def _write(result: Picture, text: str, origin: tuple[int, int], scale: float, color: Color) -> None:
    cv2.putText(result, text, origin, FONT, scale, color, 1, cv2.LINE_AA)


def draw_legend(width: int, tasks: Sequence[Any], unit: float) -> Picture:
    """A panel of this width: every task's name, then its classes with their colours, in as many lines as it takes.

    Of a task it needs `name` and `classes`, of these `name` and `color`. `unit` is 1 for letters of usual size.
    """
    scale, gap, swatch = 0.42 * unit, round(10 * unit), round(12 * unit)
    line_height = round(24 * unit)
    column = gap + max((_text_width(task.name, scale) for task in tasks), default=0) + 2 * gap
    entries: list[tuple[int, int, str, Color | None]] = []
    line = 0
    for task in tasks:
        entries.append((gap, line, task.name, None))
        x = column
        for entry in task.classes:
            if entry.name == BACKGROUND:
                continue
            needed = swatch + gap // 2 + _text_width(entry.name, scale) + 2 * gap
            if x + needed > width and x > column:
                x, line = column, line + 1
            entries.append((x, line, entry.name, entry.color))
            x += needed
        line += 1
    panel = np.full((gap + line * line_height + gap // 2, width, 3), PANEL, np.uint8)
    for x, row, text, color in entries:
        bottom = gap + row * line_height + swatch
        if color is None:
            _write(panel, text, (x, bottom), scale, CAPTION)
        else:
            cv2.rectangle(panel, (x, bottom - swatch), (x + swatch, bottom), color, cv2.FILLED)
            _write(panel, text, (x + swatch + gap // 2, bottom), scale, WHITE)
    return panel


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, FONT, scale, 1)[0][0])
