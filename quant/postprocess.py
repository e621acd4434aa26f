"""References of the post-processing ops, integer from the heads' int8 to the boxes; the compiled op equals them.

Coordinates are quarter pixels of the network input, measured at pixel edges: a picture of width W spans 0..4W, and a
box's width is x2 - x1. The tables are computed once, when a model is built, and shipped in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.arith import INT8_MAX, INT8_MIN, Int8, Int32, Int64
from quant.errors import QuantError
from quant.params import scale_of

QUARTERS = 4
EXP_OUTPUT_SHIFT = 11
EXP_MAX = 65535
ROW_FIELDS = 6  # x1, y1, x2, y2, score, class
RECORD_BYTES = 16  # of the hardware layout: the header and every box
_RECORD = np.dtype([("box", "<i2", 4), ("score", "i1"), ("class", "u1"), ("padding", "V6")])


@dataclass(frozen=True)
class DetectionAttributes:
    """Attributes of `DetectionPostProcessing_X2`, named as in the original. Tuples have one entry per feature map."""

    anchor_start_addr: tuple[int, ...]  # row of `anchors` where the map's anchors begin
    num_anchors: tuple[int, ...]  # anchors per cell
    class_num_list: tuple[int, ...]
    class_offset_list: tuple[int, ...]  # added to the map's class index
    feature_stride_h: tuple[int, ...]  # pixels
    feature_stride_w: tuple[int, ...]
    use_clipping_list: tuple[bool, ...]  # clip the map's boxes to the picture
    anchors: tuple[tuple[int, int], ...]  # (h, w) in quarter pixels
    input_shift: int  # of the deltas
    box_filter_threshold: int  # a box stays whose int8 score is at least this
    exp_output_shift: int = EXP_OUTPUT_SHIFT
    nms_threshold: int = 179  # of 256
    nms_margin: int = -1  # a box suppresses those whose score is lower by more than this
    nms_output_bbox_num: int = 100


def detection_attributes(task: Mapping[str, Any], *, score_shift: int, delta_shift: int) -> DetectionAttributes:
    """Attributes for a detection entry of a deployment dictionary; its anchors are (h, w) in pixels per stride."""
    strides, levels = tuple(task["strides"]), task["anchors"]
    maps = len(strides)
    counts = tuple(len(level) for level in levels)
    return DetectionAttributes(
        anchor_start_addr=tuple(sum(counts[:index]) for index in range(maps)),
        num_anchors=counts,
        class_num_list=(len(task["classes"]),) * maps,
        class_offset_list=(0,) * maps,
        feature_stride_h=strides,
        feature_stride_w=strides,
        use_clipping_list=(bool(task["use_clipping"]),) * maps,
        anchors=tuple((round(QUARTERS * h), round(QUARTERS * w)) for level in levels for h, w in level),
        input_shift=delta_shift,
        box_filter_threshold=filter_threshold(task["score_threshold"], score_shift),
        nms_threshold=task["nms_threshold"],
        nms_margin=task["nms_margin"],
        nms_output_bbox_num=task["nms_output_bbox_num"],
    )


def exp_table(input_shift: int, exp_output_shift: int = EXP_OUTPUT_SHIFT) -> Int32:
    """int32[256]: entry q + 128 is floor(exp(q / 2^input_shift) · 2^exp_output_shift), at most 65535."""
    # math.exp overflows beyond 709; exp(12) is past the cap already
    exponents = [min(q * scale_of(input_shift), 12.0) for q in range(INT8_MIN, INT8_MAX + 1)]
    return np.array([min(math.floor(math.exp(e) * 2**exp_output_shift), EXP_MAX) for e in exponents], np.int32)


def sigmoid_table(score_shift: int) -> NDArray[np.float32]:
    """float32[256]: entry q + 128 is the sigmoid of q · 2^-score_shift, the score shown to users."""
    values = [q * scale_of(score_shift) for q in range(INT8_MIN, INT8_MAX + 1)]
    return np.array([1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)) for v in values], np.float32)


def filter_threshold(probability: float, score_shift: int) -> int:
    """Smallest int8 score whose sigmoid is at least `probability`; 128, which no score reaches, if there is none."""
    return INT8_MIN + int((sigmoid_table(score_shift) < probability).sum())


def detection_post_processing(
    scores: Sequence[Int8], deltas: Sequence[Int8], attributes: DetectionAttributes, im_hw: Int32
) -> Int32:
    """Boxes of one picture, best first, as int32 (nms_output_bbox_num, 6) rows; unused rows are -1.

    scores: per map int8 (1, h, w, A·C), channel a·C + c. deltas: per map int8 (1, h, w, A·4), channel a·4 + (dx, dy,
    dw, dh). im_hw: int32 (1, 2), height and width in pixels to clip to. A row is x1, y1, x2, y2 (quarter pixels), the
    int8 score, the class. Anchor index: by map, row, column, anchor.
    """
    _check_maps(scores, deltas, attributes)
    candidates = np.concatenate(
        [
            _candidates(score, delta, attributes, index, im_hw)
            for index, (score, delta) in enumerate(zip(scores, deltas, strict=True))
        ]
    )
    rows = np.full((attributes.nms_output_bbox_num, ROW_FIELDS), -1, np.int32)
    kept = suppress(best_first(candidates), attributes)
    rows[: len(kept)] = kept
    return rows


def _candidates(score: Int8, delta: Int8, attributes: DetectionAttributes, index: int, im_hw: Int32) -> Int64:
    """One map's boxes that have an area and whose best class passes the threshold, in anchor order: int64 (n, 6)."""
    by_class = score.reshape(-1, attributes.class_num_list[index])
    best = by_class.argmax(axis=1)  # the lowest index on a tie
    best_score = by_class.max(axis=1)
    passing = np.flatnonzero(best_score >= attributes.box_filter_threshold)
    boxes = decode(delta.reshape(-1, 4)[passing], passing, score.shape[2], attributes, index)
    if attributes.use_clipping_list[index]:
        height, width = (QUARTERS * int(size) for size in im_hw.reshape(2))
        boxes = np.clip(boxes, 0, [width, height, width, height])
    classes = best[passing] + attributes.class_offset_list[index]
    rows = np.concatenate([boxes, best_score[passing, None].astype(np.int64), classes[:, None]], axis=1)
    # without area nothing overlaps it, so no box would ever suppress it
    return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]


def decode(delta: Int8, anchor: Int64, width: int, attributes: DetectionAttributes, index: int) -> Int64:
    """int64 (n, 4) boxes x1, y1, x2, y2 in quarter pixels of map `index`, which has `width` columns.

    delta int8 (n, 4) dx, dy, dw, dh; anchor (n,) = (row · width + column) · num_anchors + anchor of the cell.
    """
    cell, slot = np.divmod(anchor, attributes.num_anchors[index])
    row, column = np.divmod(cell, width)
    size = np.array(attributes.anchors, np.int64)[attributes.anchor_start_addr[index] + slot]
    anchor_h, anchor_w = size[:, 0], size[:, 1]
    # the middle of the cell: (column + 1/2) · stride pixels
    anchor_x = (2 * column + 1) * attributes.feature_stride_w[index] * (QUARTERS // 2)
    anchor_y = (2 * row + 1) * attributes.feature_stride_h[index] * (QUARTERS // 2)
    dx, dy, dw, dh = delta.astype(np.int64).T
    table = exp_table(attributes.input_shift, attributes.exp_output_shift).astype(np.int64)
    center_x = anchor_x + _shift_right(dx * anchor_w, attributes.input_shift)
    center_y = anchor_y + _shift_right(dy * anchor_h, attributes.input_shift)
    box_w = (table[dw - INT8_MIN] * anchor_w) >> attributes.exp_output_shift
    box_h = (table[dh - INT8_MIN] * anchor_h) >> attributes.exp_output_shift
    x1 = center_x - (box_w >> 1)
    y1 = center_y - (box_h >> 1)
    return np.stack([x1, y1, x1 + box_w, y1 + box_h], axis=1)


def _shift_right(value: Int64, shift: int) -> Int64:
    """Arithmetic shift; a negative shift goes left."""
    return value >> shift if shift >= 0 else value << -shift


def best_first(rows: Int64) -> Int64:
    """Rows (n, 6) by descending score; equal scores keep their order, which is that of the anchors."""
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def suppress(ordered: Int64, attributes: DetectionAttributes) -> Int64:
    """Greedy per-class suppression of rows (n, 6) in order; returns the kept rows, at most nms_output_bbox_num.

    A kept box suppresses a later one of its class when 256 · intersection > nms_threshold · union and the difference of
    their scores exceeds nms_margin. All in int64: int32 overflows at these sizes.
    """
    kept: list[Int64] = []
    alive = np.ascontiguousarray(ordered.T)  # columns: each field contiguous
    while alive.shape[1] and len(kept) < attributes.nms_output_bbox_num:
        first, later = alive[:, 0], alive[:, 1:]
        kept.append(first)
        intersection, union = overlap(first, later)
        suppressed = (256 * intersection > attributes.nms_threshold * union) & (later[5] == first[5])
        suppressed &= first[4] - later[4] > attributes.nms_margin
        alive = later[:, ~suppressed]
    return np.array(kept, ordered.dtype).reshape(-1, ROW_FIELDS)


def overlap(box: Int64, others: Int64) -> tuple[Int64, Int64]:
    """Areas of intersection and union of one box (6,) with each column of `others` (6, n), int64 (n,)."""
    width = np.minimum(others[2], box[2]) - np.maximum(others[0], box[0])
    height = np.minimum(others[3], box[3]) - np.maximum(others[1], box[1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (others[2] - others[0]) * (others[3] - others[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return intersection, areas + area - intersection


def pack_hardware(rows: Int32) -> NDArray[np.uint8]:
    """The chip's layout of rows (n, 6): uint8 (16 + 16n,), little-endian.

    A 16-byte header whose first int32 is 16 times the count of boxes; per box four int16 (saturated), an int8 score, a
    uint8 class and six bytes of 0. Bytes past the last box are 0.
    """
    used = rows[rows[:, 5] >= 0]
    records = np.zeros(len(rows), _RECORD)
    limits = np.iinfo(np.int16)
    records["box"][: len(used)] = np.clip(used[:, :4], limits.min, limits.max)
    records["score"][: len(used)] = used[:, 4]
    records["class"][: len(used)] = used[:, 5]
    header = np.zeros(RECORD_BYTES // 4, "<i4")
    header[0] = RECORD_BYTES * len(used)
    return np.concatenate([header.view(np.uint8), records.view(np.uint8)])


def _check_maps(scores: Sequence[Int8], deltas: Sequence[Int8], attributes: DetectionAttributes) -> None:
    if not len(scores) == len(deltas) == len(attributes.num_anchors):
        raise QuantError(f"{len(scores)} score and {len(deltas)} delta maps for {len(attributes.num_anchors)} strides")
    for index, (score, delta) in enumerate(zip(scores, deltas, strict=True)):
        anchors, classes = attributes.num_anchors[index], attributes.class_num_list[index]
        wanted = (1, *score.shape[1:3], anchors * classes), (1, *score.shape[1:3], anchors * 4)
        if (score.shape, delta.shape) != wanted or score.dtype != np.int8 or delta.dtype != np.int8:
            raise QuantError(
                f"map {index}: scores and deltas must be int8 of shapes {wanted}, are {score.dtype} {score.shape} "
                f"and {delta.dtype} {delta.shape}"
            )
