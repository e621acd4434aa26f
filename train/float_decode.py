"""Boxes of a float model, whose heads have no shifts: the rules of `quant.postprocess`, in floating point.

Only for `with-bn` trained in plain float: everything quantized goes through the integer reference.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quant.postprocess import QUARTERS, ROW_FIELDS, detection_attributes, suppress

FLOAT_SCORE_SHIFT = 4  # scores are reported as int8 like those of a quantized model: logits in steps of 1/16, up to 8
Array = npt.NDArray[Any]


def decode_float(
    scores: Sequence[Array], deltas: Sequence[Array], task: Mapping[str, Any], im_hw: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Float maps (1, A·C, h, w) and (1, A·4, h, w) per stride to int32 rows like `detection_post_processing`'s.

    `task` is the deployment entry. Boxes are rounded to quarter pixels at the end, scores to int8 logits.
    """
    attributes = detection_attributes(task, score_shift=FLOAT_SCORE_SHIFT, delta_shift=0)
    classes = len(task["classes"])
    height, width = (QUARTERS * int(size) for size in im_hw.reshape(2))
    rows = []
    for score, delta, stride, anchors in zip(scores, deltas, task["strides"], task["anchors"], strict=True):
        logits = score[0].transpose(1, 2, 0).reshape(-1, classes)
        quantized = np.clip(np.rint(logits.max(axis=1) * 2**FLOAT_SCORE_SHIFT), -128, 127)
        boxes = _boxes(delta[0], stride, np.asarray(anchors)) * QUARTERS
        if task["use_clipping"]:
            boxes = np.clip(boxes, 0, [width, height, width, height])
        found = np.column_stack([np.rint(boxes), quantized, logits.argmax(axis=1)]).astype(np.int64)
        valid = (found[:, 4] >= attributes.box_filter_threshold) & (found[:, 2:4] > found[:, 0:2]).all(axis=1)
        rows.append(found[valid])
    candidates = np.concatenate(rows)
    kept = suppress(candidates[np.argsort(-candidates[:, 4], kind="stable")], attributes)
    result = np.full((attributes.nms_output_bbox_num, ROW_FIELDS), -1, np.int32)
    result[: len(kept)] = kept
    return result


def _boxes(delta: Array, stride: int, anchors: Array) -> Array:
    """(A·4, h, w) deltas and (A, 2) anchors (h, w) to boxes (h·w·A, 4) x1, y1, x2, y2 in pixels."""
    rows, columns = delta.shape[1:]
    values = delta.transpose(1, 2, 0).reshape(rows, columns, len(anchors), 4).astype(np.float64)
    centre_y, centre_x = np.meshgrid(
        (np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, indexing="ij"
    )
    x = centre_x[..., None] + values[..., 0] * anchors[:, 1]
    y = centre_y[..., None] + values[..., 1] * anchors[:, 0]
    half_w = 0.5 * anchors[:, 1] * np.exp(np.minimum(values[..., 2], 10.0))
    half_h = 0.5 * anchors[:, 0] * np.exp(np.minimum(values[..., 3], 10.0))
    return np.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1).reshape(-1, 4)
