"""Labelled boxes, encoded as training encodes them, quantized and decoded as the compiled model decodes them, come back
to within a pixel and half a quantization step.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from configs import Config, load
from configs.task import DetectionTask
from quant.postprocess import (
    QUARTERS,
    DetectionAttributes,
    decode,
    detection_attributes,
    detection_post_processing,
    pack_hardware,
)
from runtime.hardware_layout import read_boxes
from train.losses import Match, all_anchors, match_anchors

HW = (224, 480)
SCORE_SHIFT = 4
REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG: Config = load(REPOSITORY / "configs/4pe_resize/multitask.py")
TASKS = [task for task in CONFIG.tasks if isinstance(task, DetectionTask)]

box = st.tuples(
    st.floats(0, HW[1] - 8, width=32), st.floats(0, HW[0] - 8, width=32), st.floats(8, 200), st.floats(8, 200)
)
case = {"task": st.sampled_from(TASKS), "shift": st.integers(4, 7), "boxes": st.lists(box, min_size=1, max_size=5)}


def sizes_of(task: DetectionTask) -> list[tuple[int, int]]:
    return [(-(-HW[0] // stride), -(-HW[1] // stride)) for stride in task.head.strides]


def encoded(task: DetectionTask, corners: np.ndarray) -> Match:
    anchors = all_anchors(task.head.anchors, task.head.strides, sizes_of(task))
    none = torch.zeros(0, 4)
    classes = torch.arange(len(corners)) % len(task.classes)
    iou = {"positive_iou": task.loss.positive_iou, "negative_iou": task.loss.negative_iou}
    return match_anchors(anchors, torch.from_numpy(corners), classes, none, **iou)


def corners_of(boxes: list[tuple[float, ...]]) -> np.ndarray:
    """x1, y1, x2, y2 of those, within the picture."""
    return np.array([(x, y, min(x + w, HW[1]), min(y + h, HW[0])) for x, y, w, h in boxes], np.float32)


def maps_of(task: DetectionTask, values: np.ndarray) -> list[np.ndarray]:
    """Values (anchors, fields) of all maps as int8 (1, h, w, anchors of a cell · fields) each."""
    maps, start = [], 0
    for rows, columns in sizes_of(task):
        count = rows * columns * task.head.anchors_per_cell
        maps.append(values[start : start + count].reshape(1, rows, columns, -1).astype(np.int8))
        start += count
    return maps


def quantized(deltas: torch.Tensor, shift: int) -> np.ndarray:
    return np.clip(np.rint(deltas.numpy() * 2.0**shift), -128, 127).astype(np.int8)


def attributes_of(task: DetectionTask, shift: int) -> DetectionAttributes:
    return detection_attributes(task.deployment(), score_shift=SCORE_SHIFT, delta_shift=shift)


@given(**case)
def test_every_matched_anchor_gives_its_box_back(task: DetectionTask, shift: int, boxes: list) -> None:
    corners = corners_of(boxes)
    match = encoded(task, corners)
    attributes, positions = attributes_of(task, shift), match.positive.nonzero()[:, 0].numpy()
    deltas = quantized(match.deltas, shift)
    within = (match.deltas.abs() * 2.0**shift <= 127).all(dim=1).numpy()  # the head's range
    assume(within.any())
    start = 0
    for index, (rows, columns) in enumerate(sizes_of(task)):
        count = rows * columns * task.head.anchors_per_cell
        here = within & (positions >= start) & (positions < start + count)
        found = decode(deltas[here], positions[here] - start, columns, attributes, index) / QUARTERS
        start += count
        # the labelled boxes of these anchors, from the targets before they were rounded
        anchors = all_anchors(task.head.anchors, task.head.strides, sizes_of(task))[positions[here]].double().numpy()
        exact = match.deltas[torch.from_numpy(here)].double().numpy()
        centres, spans = anchors[:, :2] + exact[:, :2] * anchors[:, 2:], anchors[:, 2:] * np.exp(exact[:, 2:])
        half_step = 2.0 ** -(shift + 1)
        bound = 1 + half_step * anchors[:, 2:] + spans / 2 * np.expm1(half_step)
        for side, edges in ((-1, found[:, :2]), (1, found[:, 2:])):
            assert (np.abs(edges - (centres + side * spans / 2)) <= bound).all()
        assert all(np.abs(corners - row).max(axis=1).min() < 0.05 for row in _corners(centres, spans))


def _corners(centres: np.ndarray, spans: np.ndarray) -> np.ndarray:
    return np.concatenate([centres - spans / 2, centres + spans / 2], axis=1)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_labels_pass_through_the_op_and_the_chips_layout(task: DetectionTask) -> None:
    """As heads that learnt them perfectly would return them."""
    shift = 6
    corners = corners_of([(20, 40, 60, 50), (200, 30, 24, 40), (300, 100, 90, 80)])
    match = encoded(task, corners)
    scores = np.full((len(match.positive), len(task.classes)), -100)
    deltas = np.zeros((len(match.positive), 4))
    scores[match.positive.numpy(), match.classes.numpy()] = 40
    deltas[match.positive.numpy()] = quantized(match.deltas, shift)
    im_hw = np.array([HW], np.int32)
    rows = detection_post_processing(maps_of(task, scores), maps_of(task, deltas), attributes_of(task, shift), im_hw)
    found = read_boxes(pack_hardware(rows))
    assert len(found) == len(corners)
    for index, wanted in enumerate(corners):
        error = np.abs(found[:, :4] / QUARTERS - wanted).max(axis=1)
        assert error.min() < 1 + 0.02 * (wanted[2:] - wanted[:2]).max()
        assert found[error.argmin(), 5] == index % len(task.classes)
