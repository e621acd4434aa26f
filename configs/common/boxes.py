"""Anchors, and what all detection branches share."""

from typing import Any

from . import network

STRIDES = (8, 16, 32, 64)


def head(size: float, ratios: tuple[float, ...], octaves: tuple[float, ...] = (1.0,)) -> dict[str, Any]:
    """A branch with these anchors on the maps at all strides."""
    return {
        "kind": "anchors",
        "strides": STRIDES,
        "channels": network.BOX_CHANNELS,
        "anchors": anchors(size, ratios, octaves),
    }


def anchors(
    size: float, ratios: tuple[float, ...], octaves: tuple[float, ...] = (1.0,)
) -> list[list[tuple[float, float]]]:
    """Per stride the (h, w) of one anchor per ratio h/w and octave, in pixels: an area of (size · stride · octave)²."""
    return [
        [
            (round(size * stride * octave * ratio**0.5, 1), round(size * stride * octave / ratio**0.5, 1))
            for octave in octaves
            for ratio in ratios
        ]
        for stride in STRIDES
    ]


LOSS = {"kind": "anchor_focal", "positive_iou": 0.5, "negative_iou": 0.4, "alpha": 0.25, "gamma": 2.0}
# A low threshold, for metrics want the doubtful boxes, too; runtime.infer and train.predict show those from 0.3 up.
# NMS at half an overlap (128 of 256): at 0.7 neighbouring anchors leave one object several boxes.
POST_PROCESSING = {"score_threshold": 0.05, "nms_threshold": 128, "nms_margin": -1, "nms_output_bbox_num": 100}
