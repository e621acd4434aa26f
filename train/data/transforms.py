"""From a picture of any size to the network's training input; boxes and masks follow the pixels."""

from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.classes import IGNORE
from train.data.samples import Boxes, Sample

PAD_PIXEL = 128
LEAST_KEPT = 0.35  # share of a box that the crop must keep; less is ignored
LEAST_SIDE = 2.0  # pixels


class Augmentation(Protocol):
    """The knobs of `configs.schema.Augmentation`."""

    @property
    def flip_probability(self) -> float: ...
    @property
    def scale(self) -> tuple[float, float]: ...
    @property
    def brightness(self) -> float: ...
    @property
    def contrast(self) -> float: ...
    @property
    def saturation(self) -> float: ...


def min_max_size(source_hw: tuple[int, int], resize_hw: tuple[int, int]) -> tuple[int, int]:
    """The size of `min_max_pairs`: shorter side to resize_hw[0] unless the longer would exceed resize_hw[1]; sides to
    the nearest integer.
    """
    shorter, longer = sorted(source_hw)
    to, of = resize_hw[0], shorter
    if longer * resize_hw[0] > resize_hw[1] * shorter:
        to, of = resize_hw[1], longer
    height, width = (max(1, (2 * side * to + of) // (2 * of)) for side in source_hw)
    return height, width


def resize(sample: Sample, hw: tuple[int, int]) -> Sample:
    """The sample at another size: pixels averaged (linear when enlarged), masks by the nearest pixel."""
    height, width = sample.picture.shape[:2]
    if (height, width) == hw:
        return sample
    smaller = hw[0] < height and hw[1] < width
    picture = cv2.resize(sample.picture, hw[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    masks = {
        task: cv2.resize(mask, hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for task, mask in sample.masks.items()
    }
    factor = np.array([hw[1] / width, hw[0] / height] * 2, np.float32)
    return Sample(picture, {task: replace(b, boxes=b.boxes * factor) for task, b in sample.boxes.items()}, masks)


def crop(sample: Sample, top: int, left: int, hw: tuple[int, int]) -> Sample:
    """The window of size hw at (top, left); what lies outside is pixel 128 and ignored. Boxes cut off for the most part
    are ignored, those outside dropped.
    """
    height, width = sample.picture.shape[:2]
    bottom, right = min(top + hw[0], height), min(left + hw[1], width)
    picture = np.full((*hw, 3), PAD_PIXEL, np.uint8)
    picture[: bottom - top, : right - left] = sample.picture[top:bottom, left:right]
    masks = {}
    for task, mask in sample.masks.items():
        masks[task] = np.full(hw, IGNORE, np.uint8)
        masks[task][: bottom - top, : right - left] = mask[top:bottom, left:right]
    return Sample(picture, {task: _crop_boxes(boxes, top, left, hw) for task, boxes in sample.boxes.items()}, masks)


def _crop_boxes(boxes: Boxes, top: int, left: int, hw: tuple[int, int]) -> Boxes:
    moved = boxes.boxes - np.array([left, top, left, top], np.float32)
    cut, kept = cut_boxes(moved, (0, 0, hw[1], hw[0]))
    sides = cut[:, 2:] - cut[:, :2]
    inside = (sides > 0).all(axis=1)
    ignore = boxes.ignore | (kept < LEAST_KEPT) | (sides < LEAST_SIDE).any(axis=1)
    return Boxes(cut[inside], boxes.classes[inside], ignore[inside], boxes.unlabelled)


def cut_boxes(
    boxes: NDArray[np.float32], window: tuple[float, float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes (n, 4) clipped to the window x1, y1, x2, y2, and the share (n,) of its area that each keeps."""
    x1, y1, x2, y2 = window
    cut = np.clip(boxes, np.array([x1, y1, x1, y1], np.float32), np.array([x2, y2, x2, y2], np.float32))
    return cut, (_area(cut) / np.maximum(_area(boxes), 1e-6)).astype(np.float32)


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    area: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def flip(sample: Sample) -> Sample:
    """Mirrored left to right; no class of the six tasks knows left from right."""
    width = sample.picture.shape[1]
    boxes = {}
    for task, entry in sample.boxes.items():
        mirrored = entry.boxes[:, [2, 1, 0, 3]].copy()
        mirrored[:, [0, 2]] = width - mirrored[:, [0, 2]]
        boxes[task] = replace(entry, boxes=mirrored)
    masks = {task: np.ascontiguousarray(mask[:, ::-1]) for task, mask in sample.masks.items()}
    return Sample(np.ascontiguousarray(sample.picture[:, ::-1]), boxes, masks)


def change_colours(
    picture: NDArray[np.uint8], brightness: float, contrast: float, saturation: float
) -> NDArray[np.uint8]:
    """Factors around 1: saturation about the pixel's grey, contrast about 128, then brightness."""
    result = picture
    if saturation != 1.0:
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        result = cv2.addWeighted(picture, saturation, grey, 1.0 - saturation, 0.0)
    if brightness != 1.0 or contrast != 1.0:
        levels = ((np.arange(256) - 128.0) * contrast + 128.0) * brightness
        result = cv2.LUT(result, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    return np.asarray(result, np.uint8)


class Augment:
    """Random scale, crop, flip and colours of a sample already at its training size; all drawn from one number."""

    def __init__(self, crop_hw: tuple[int, int], settings: Augmentation) -> None:
        self._crop_hw = crop_hw
        self._settings = settings

    def __call__(self, sample: Sample, draw: int) -> Sample:
        """The changed sample, of size crop_hw; the same for the same `draw`."""
        rng = np.random.Generator(np.random.PCG64(draw))
        settings = self._settings
        # Every number is drawn whatever the settings, so that one knob does not change what the others do.
        scale_at, top_at, left_at, flip_at, *colour_at = rng.random(7).tolist()
        low, high = settings.scale
        factor = low + (high - low) * scale_at
        height, width = (max(1, round(side * factor)) for side in sample.picture.shape[:2])
        sample = resize(sample, (height, width))
        top = int(top_at * (max(0, height - self._crop_hw[0]) + 1))
        left = int(left_at * (max(0, width - self._crop_hw[1]) + 1))
        sample = crop(sample, top, left, self._crop_hw)
        widths = (settings.brightness, settings.contrast, settings.saturation)
        factors = [1 + half * (2 * at - 1) for half, at in zip(widths, colour_at, strict=True)]
        shown = sample.picture[: height - top, : width - left]  # padding keeps its colour
        shown[:] = change_colours(shown, *factors)
        if flip_at < settings.flip_probability:
            sample = flip(sample)
        return sample
