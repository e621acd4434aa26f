"""The float decoder against the integer reference: on maps that lie on a grid they agree but for the rounding."""

from pathlib import Path

import numpy as np

from configs import load
from quant.postprocess import detection_attributes, detection_post_processing
from train.float_decode import FLOAT_SCORE_SHIFT, decode_float

DELTA_SHIFT = 6
IM_HW = np.array([[448, 912]], np.int32)


def maps(rng: np.random.Generator, classes: int, strides: tuple[int, ...]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    scores, deltas = [], []
    for stride in strides:
        size = 1, 448 // stride, 960 // stride
        score = np.full((*size, 3 * classes), -100, np.int8)
        hot = rng.random(score.shape) < 0.004
        score[hot] = rng.integers(0, 120, int(hot.sum()))
        scores.append(score)
        deltas.append(rng.integers(-60, 60, (*size, 12)).astype(np.int8))
    return scores, deltas


def test_float_boxes_equal_integer_boxes_within_their_rounding(repository: Path) -> None:
    entry = load(repository / "configs/4pe_resize/multitask.py").deployment()["tasks"][0]
    entry["nms_threshold"] = 256  # suppression would turn a difference of a quarter pixel into one of a box
    scores, deltas = maps(np.random.default_rng(0), len(entry["classes"]), tuple(entry["strides"]))
    attributes = detection_attributes(entry, score_shift=FLOAT_SCORE_SHIFT, delta_shift=DELTA_SHIFT)
    expected = detection_post_processing(scores, deltas, attributes, IM_HW)
    found = decode_float(
        [np.ldexp(score.astype(np.float32), -FLOAT_SCORE_SHIFT).transpose(0, 3, 1, 2) for score in scores],
        [np.ldexp(delta.astype(np.float32), -DELTA_SHIFT).transpose(0, 3, 1, 2) for delta in deltas],
        entry,
        IM_HW,
    )
    assert (expected[:, 5] >= 0).sum() > 50
    assert np.array_equal(found[:, 4:], expected[:, 4:])
    assert np.abs(found - expected).max() <= 3
