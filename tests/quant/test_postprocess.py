"""Detection post-processing against a slow one in plain Python, and mutants that the comparison must notice."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant import postprocess
from quant.errors import QuantError
from quant.postprocess import DetectionAttributes, detection_attributes

Array = np.ndarray
TASK: dict[str, Any] = {
    "name": "det_test",
    "classes": ["a", "b"],
    "strides": [8, 16],
    "anchors": [[[20.0, 8.5], [25.3, 30.1]], [[90.0, 60.0], [60.0, 90.0]]],
    "score_threshold": 0.5,
    "use_clipping": True,
    "nms_threshold": 179,
    "nms_margin": -1,
    "nms_output_bbox_num": 300,  # more than there are anchors
}
ATTRIBUTES = detection_attributes(TASK, score_shift=4, delta_shift=5)
IM_HW = np.array([[60, 90]], np.int32)
Maps = tuple[list[Array], list[Array]]


def slow(scores: list[Array], deltas: list[Array], attributes: DetectionAttributes, im_hw: Array) -> list[list[int]]:
    """One anchor, one pair of boxes at a time, in Python's unbounded integers."""
    boxes = []
    for level, (score, delta) in enumerate(zip(scores, deltas, strict=True)):
        for row in range(score.shape[1]):
            for column in range(score.shape[2]):
                for anchor in range(attributes.num_anchors[level]):
                    box = slow_box(score[0, row, column], delta[0, row, column], attributes, level, anchor, row, column)
                    if box is not None and attributes.use_clipping_list[level]:
                        for axis, size in ((0, im_hw[0, 1]), (1, im_hw[0, 0])):
                            for side in (axis, axis + 2):
                                box[side] = min(max(box[side], 0), 4 * int(size))
                    if box is not None and box[2] > box[0] and box[3] > box[1]:
                        boxes.append(box)
    kept: list[list[int]] = []
    for box in sorted(boxes, key=lambda b: -b[4]):  # Python's sort is stable
        if len(kept) < attributes.nms_output_bbox_num and not any(suppresses(k, box, attributes) for k in kept):
            kept.append(box)
    return kept


def slow_box(
    score: Array, delta: Array, attributes: DetectionAttributes, level: int, anchor: int, row: int, column: int
) -> list[int] | None:
    classes = attributes.class_num_list[level]
    best, best_score = 0, -1000
    for index in range(classes):
        value = int(score[anchor * classes + index])
        if value > best_score:
            best, best_score = index, value
    if best_score < attributes.box_filter_threshold:
        return None
    height, width = attributes.anchors[attributes.anchor_start_addr[level] + anchor]
    dx, dy, dw, dh = (int(delta[anchor * 4 + k]) for k in range(4))
    unit = 2.0**attributes.input_shift
    center_x = (2 * column + 1) * attributes.feature_stride_w[level] * 2 + math.floor(dx * width / unit)
    center_y = (2 * row + 1) * attributes.feature_stride_h[level] * 2 + math.floor(dy * height / unit)
    box_w = min(65535, math.floor(math.exp(dw / unit) * 2048)) * width // 2048
    box_h = min(65535, math.floor(math.exp(dh / unit) * 2048)) * height // 2048
    left, top = center_x - box_w // 2, center_y - box_h // 2
    return [left, top, left + box_w, top + box_h, best_score, best + attributes.class_offset_list[level]]


def suppresses(kept: list[int], box: list[int], attributes: DetectionAttributes) -> bool:
    if kept[5] != box[5] or kept[4] - box[4] <= attributes.nms_margin:
        return False
    width = min(kept[2], box[2]) - max(kept[0], box[0])
    height = min(kept[3], box[3]) - max(kept[1], box[1])
    if width <= 0 or height <= 0:
        return False
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (kept, box))
    return 256 * width * height > attributes.nms_threshold * (areas - width * height)


def draw(seed: int, score_values: list[int] | None = None, spread: int = 40) -> Maps:
    """Random maps of both strides; few score values make ties between classes, anchors and boxes."""
    rng = np.random.default_rng(seed)
    values = np.array(score_values or range(-128, 128), np.int8)
    scores = [rng.choice(values, (1, h, w, 4)) for h, w in ((7, 11), (4, 6))]
    deltas = [rng.integers(-spread, spread + 1, (1, h, w, 8)).astype(np.int8) for h, w in ((7, 11), (4, 6))]
    return scores, deltas


def agrees(maps: Maps, attributes: DetectionAttributes, im_hw: Array = IM_HW) -> int:
    """Compares every row; returns how many boxes there are."""
    rows = postprocess.detection_post_processing(*maps, attributes, im_hw)
    expected = slow(*maps, attributes, im_hw)
    assert rows.dtype == np.int32
    assert rows.shape == (attributes.nms_output_bbox_num, 6)
    assert rows[: len(expected)].tolist() == expected
    assert (rows[len(expected) :] == -1).all()
    return len(expected)


def check_random() -> None:
    assert agrees(draw(1), ATTRIBUTES) > 20


def check_ties() -> None:
    """Three score values only: classes tie within an anchor, boxes tie everywhere."""
    assert agrees(draw(2, [0, 1, 50]), ATTRIBUTES) > 20
    assert agrees(draw(3, [1], spread=8), replace(ATTRIBUTES, nms_output_bbox_num=7)) == 7


def check_margins() -> None:
    maps = draw(4, [10, 11, 14], spread=6)
    attributes = replace(ATTRIBUTES, nms_threshold=40)
    counts = [agrees(maps, replace(attributes, nms_margin=margin)) for margin in (-1, 0, 1, 3, 4)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 3, "a larger margin suppresses less"


def check_thresholds() -> None:
    for threshold in (-128, 0, 100, 127):
        agrees(draw(5), replace(ATTRIBUTES, box_filter_threshold=threshold))
    for threshold in (0, 128, 255):
        agrees(draw(6, spread=10), replace(ATTRIBUTES, nms_threshold=threshold))


def check_exact_overlap() -> None:
    """Overlap of exactly nms_threshold / 256: not suppressed; one more quarter pixel of width: suppressed."""
    anchors = ((16, 256), (16, 128))
    attributes = single_map(anchors, nms_threshold=128)
    scores, deltas = np.full((1, 1, 1, 2), 9, np.int8), np.zeros((1, 1, 1, 8), np.int8)
    assert agrees(([scores], [deltas]), attributes) == 2
    assert agrees(([scores], [deltas]), replace(attributes, anchors=((16, 256), (16, 129)))) == 1


def check_clipping() -> None:
    agrees(draw(7, spread=127), ATTRIBUTES)
    agrees(draw(7, spread=127), replace(ATTRIBUTES, use_clipping_list=(False, True)))
    agrees(draw(8, spread=127), replace(ATTRIBUTES, use_clipping_list=(False, False)))
    agrees(draw(9, spread=127), ATTRIBUTES, np.array([[5, 7]], np.int32))


def check_large_boxes() -> None:
    """Areas whose 256-fold leaves int32."""
    anchors = tuple((h * 40, w * 40) for h, w in ATTRIBUTES.anchors)
    attributes = replace(ATTRIBUTES, anchors=anchors, use_clipping_list=(False, False))
    assert agrees(draw(10, spread=30), attributes) > 2


def check_shifts() -> None:
    for shift in range(-4, 13):
        agrees(draw(20 + shift), replace(ATTRIBUTES, input_shift=shift, use_clipping_list=(False, True)))


def check_class_offsets() -> None:
    agrees(draw(11, [0, 1, 50]), replace(ATTRIBUTES, class_offset_list=(3, 4)))


def single_map(anchors: tuple[tuple[int, int], ...], **changes: Any) -> DetectionAttributes:
    """One cell of stride 64, one class, no clipping."""
    only = DetectionAttributes(
        anchor_start_addr=(0,),
        num_anchors=(len(anchors),),
        class_num_list=(1,),
        class_offset_list=(0,),
        feature_stride_h=(64,),
        feature_stride_w=(64,),
        use_clipping_list=(False,),
        anchors=anchors,
        input_shift=5,
        box_filter_threshold=0,
    )
    return replace(only, **changes)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_equals_the_slow_one(check: Callable[[], None]) -> None:
    check()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(-4, 12), st.integers(-1, 2), st.sampled_from([[3, 4], [-1, 0, 1], None]))
def test_any_maps(seed: int, shift: int, margin: int, values: list[int] | None) -> None:
    attributes = replace(ATTRIBUTES, input_shift=shift, nms_margin=margin, box_filter_threshold=0)
    agrees(draw(seed, values), attributes)


def test_nothing_passes() -> None:
    assert agrees(draw(1, [-5]), ATTRIBUTES) == 0
    assert agrees(draw(1), replace(ATTRIBUTES, box_filter_threshold=128)) == 0
    assert agrees(draw(1), ATTRIBUTES, np.zeros((1, 2), np.int32)) == 0, "clipped to nothing"


def test_all_but_the_first_are_suppressed() -> None:
    attributes = single_map(((400, 400), (400, 404), (404, 400)))
    scores = np.array([5, 90, 90], np.int8).reshape(1, 1, 1, 3)
    rows = postprocess.detection_post_processing([scores], [np.zeros((1, 1, 1, 12), np.int8)], attributes, IM_HW)
    assert rows[0].tolist() == [128 - 202, 128 - 200, 128 + 202, 128 + 200, 90, 0]
    assert (rows[1:] == -1).all()


def test_random_scores_of_the_real_size_take_under_a_second() -> None:
    sizes = [(56, 120), (28, 60), (14, 30), (7, 15)]
    task = TASK | {"strides": [8, 16, 32, 64], "anchors": [[[20, 30]] * 3] * 4, "score_threshold": 1e-9}
    attributes = detection_attributes(task, score_shift=4, delta_shift=5)
    rng = np.random.default_rng(0)
    scores = [rng.integers(-128, 128, (1, h, w, 6)).astype(np.int8) for h, w in sizes]
    deltas = [rng.integers(-128, 128, (1, h, w, 12)).astype(np.int8) for h, w in sizes]
    assert sum(score.size // 2 for score in scores) == 26775
    start = time.process_time()
    rows = postprocess.detection_post_processing(scores, deltas, attributes, np.array([[448, 960]], np.int32))
    assert time.process_time() - start < 1
    assert (rows[:, 4] >= 126).all()
    assert (np.diff(rows[:, 4]) <= 0).all()


def test_maps_that_do_not_fit_are_refused() -> None:
    scores, deltas = draw(0)
    for bad in (
        (scores[:1], deltas),
        ([scores[0], scores[1][..., :3]], deltas),
        (scores, [deltas[0], deltas[1][:, :2]]),
        (scores, [delta.astype(np.int32) for delta in deltas]),
    ):
        with pytest.raises(QuantError):
            postprocess.detection_post_processing(*bad, ATTRIBUTES, IM_HW)


real_processing, real_decode = postprocess.detection_post_processing, postprocess.decode


def with_attributes(change: Callable[[DetectionAttributes], DetectionAttributes]) -> Any:
    return lambda scores, deltas, attributes, im_hw: real_processing(scores, deltas, change(attributes), im_hw)


def with_deltas(order: list[int]) -> Any:
    def mutant(scores: list[Array], deltas: list[Array], attributes: DetectionAttributes, im_hw: Array) -> Array:
        swapped = [delta.reshape(*delta.shape[:3], -1, 4)[..., order].reshape(delta.shape) for delta in deltas]
        return real_processing(scores, swapped, attributes, im_hw)

    return mutant


def last_class_on_tie(scores: list[Array], deltas: list[Array], attributes: DetectionAttributes, im_hw: Array) -> Array:
    turned = [score.reshape(*score.shape[:3], -1, 2)[..., ::-1].reshape(score.shape) for score in scores]
    rows = real_processing(turned, deltas, attributes, im_hw)
    rows[rows[:, 5] >= 0, 5] ^= 1
    return rows


def suppress_with(overlaps: Callable[[Array, Array], Array]) -> Any:
    """The greedy loop around another condition."""

    def mutant(ordered: Array, attributes: DetectionAttributes) -> Array:
        kept: list[Array] = []
        for row in ordered:
            if len(kept) < attributes.nms_output_bbox_num and not any(condition(k, row, attributes) for k in kept):
                kept.append(row)
        return np.array(kept, np.int64).reshape(-1, 6)

    def condition(first: Array, row: Array, attributes: DetectionAttributes) -> bool:
        return bool(overlaps(np.array([*first, attributes.nms_threshold, attributes.nms_margin]), row))

    return mutant


def areas(first: Array, row: Array) -> tuple[int, int]:
    intersection, union = postprocess.overlap(first[:6], row[:, None])
    return int(intersection[0]), int(union[0])


def at_least(first: Array, row: Array) -> bool:
    intersection, union = areas(first, row)
    return first[5] == row[5] and first[4] - row[4] > first[7] and 256 * intersection >= first[6] * union > 0


def across_classes(first: Array, row: Array) -> bool:
    intersection, union = areas(first, row)
    return first[4] - row[4] > first[7] and 256 * intersection > first[6] * union


def margin_included(first: Array, row: Array) -> bool:
    intersection, union = areas(first, row)
    return first[5] == row[5] and first[4] - row[4] >= first[7] and 256 * intersection > first[6] * union


def in_int32(first: Array, row: Array) -> bool:
    intersection, union = (np.array(area, np.int64).astype(np.int32) for area in areas(first, row))
    with np.errstate(over="ignore"):
        over = intersection * np.int32(256) > np.int32(first[6]) * union
    return bool(first[5] == row[5] and first[4] - row[4] > first[7] and over)


def toward_zero(value: Array, shift: int) -> Array:
    return (np.sign(value) * (np.abs(value) >> shift)) if shift >= 0 else value << -shift


def rounded_exp(shift: int, exp_output_shift: int = 11) -> Array:
    q = np.arange(-128, 128)
    return np.rint(np.minimum(np.exp(np.minimum(q / 2.0**shift, 12)) * 2**exp_output_shift, 65535)).astype(np.int32)


def from_the_corner(delta: Array, anchor: Array, width: int, attributes: DetectionAttributes, index: int) -> Array:
    stride = np.array([attributes.feature_stride_w[index], attributes.feature_stride_h[index]] * 2)
    return real_decode(delta, anchor, width, attributes, index) - stride * 2


MUTANTS: list[tuple[str, Any, Callable[[], None]]] = [
    ("detection_post_processing", with_attributes(lambda a: replace(a, box_filter_threshold=1)), check_ties),
    (
        "detection_post_processing",
        with_attributes(lambda a: replace(a, use_clipping_list=(False,) * 2)),
        check_clipping,
    ),
    (
        "detection_post_processing",
        with_attributes(lambda a: replace(a, nms_threshold=a.nms_threshold + 1)),
        check_exact_overlap,
    ),
    ("detection_post_processing", with_attributes(lambda a: replace(a, nms_margin=a.nms_margin + 1)), check_margins),
    ("detection_post_processing", with_attributes(lambda a: replace(a, class_offset_list=(0, 0))), check_class_offsets),
    (
        "detection_post_processing",
        with_attributes(lambda a: replace(a, anchors=tuple((w, h) for h, w in a.anchors))),
        check_random,
    ),
    ("detection_post_processing", with_deltas([1, 0, 2, 3]), check_random),
    ("detection_post_processing", with_deltas([0, 1, 3, 2]), check_random),
    ("detection_post_processing", last_class_on_tie, check_ties),
    ("detection_post_processing", lambda s, d, a, hw: real_processing(s, d, a, hw[:, ::-1]), check_clipping),
    ("best_first", lambda rows: rows[::-1][np.argsort(-rows[::-1, 4], kind="stable")], check_ties),
    ("best_first", lambda rows: rows, check_random),
    ("suppress", suppress_with(at_least), check_exact_overlap),
    ("suppress", suppress_with(across_classes), check_random),
    ("suppress", suppress_with(margin_included), check_margins),
    ("suppress", suppress_with(in_int32), check_large_boxes),
    ("_shift_right", toward_zero, check_random),
    ("exp_table", rounded_exp, check_random),
    ("decode", from_the_corner, check_random),
    ("decode", lambda d, anchor, width, a, i: real_decode(d, anchor, width + 1, a, i), check_random),
]


@pytest.mark.parametrize(("name", "mutant", "check"), MUTANTS)
def test_mutants_are_noticed(
    name: str, mutant: Any, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postprocess, name, mutant)
    with pytest.raises(AssertionError):
        check()


def test_the_faithful_copy_is_no_mutant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of the suppression mutants itself is right: only their conditions are wrong."""
    faithful = lambda f, r: across_classes(f, r) and f[5] == r[5]  # noqa: E731
    monkeypatch.setattr(postprocess, "suppress", suppress_with(faithful))
    for check in (check_random, check_margins, check_exact_overlap, check_large_boxes):
        check()
