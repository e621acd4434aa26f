"""DetectionPostProcessing_X2 as TensorIR against the numpy reference: rows and packed bytes, exactly."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile.errors import CompileError
from compile.ops.detection import detection_function, level_table
from quant.postprocess import (
    DetectionAttributes,
    detection_attributes,
    detection_post_processing,
    exp_table,
    pack_hardware,
)
from tests.compile.engines import run_prim_func

Array = np.ndarray
SIZES = [(7, 11), (4, 6), (1, 2)]
TASK: dict[str, Any] = {
    "classes": ["a", "b", "c"],
    "strides": [8, 16, 32],
    "anchors": [[[20.0, 8.5], [25.3, 30.1]], [[90.0, 60.0]], [[100.0, 100.0], [60.0, 30.0], [9.0, 9.0]]],
    "score_threshold": 0.5,
    "use_clipping": True,
    "nms_threshold": 179,
    "nms_margin": -1,
    "nms_output_bbox_num": 300,  # more than there are anchors
}
ATTRIBUTES = detection_attributes(TASK, score_shift=4, delta_shift=5)
IM_HW = np.array([[60, 90]], np.int32)
HUGE = tuple((40 * h, 40 * w) for h, w in ATTRIBUTES.anchors)
VARIANTS: dict[str, DetectionAttributes] = {
    "default": ATTRIBUTES,
    "few rows": replace(ATTRIBUTES, nms_output_bbox_num=7, nms_threshold=255),
    "one row": replace(ATTRIBUTES, nms_output_bbox_num=1),
    "strict margin": replace(ATTRIBUTES, nms_margin=0, nms_threshold=60),
    "wide margin": replace(ATTRIBUTES, nms_margin=3, nms_threshold=60),
    "no suppression": replace(ATTRIBUTES, nms_threshold=256),
    "any overlap suppresses": replace(ATTRIBUTES, nms_threshold=0),
    "no clipping": replace(ATTRIBUTES, use_clipping_list=(False, False, False)),
    "clipping on one map": replace(ATTRIBUTES, use_clipping_list=(False, True, False)),
    "everything passes": replace(ATTRIBUTES, box_filter_threshold=-128),
    "only the best score": replace(ATTRIBUTES, box_filter_threshold=127),
    "nothing can pass": replace(ATTRIBUTES, box_filter_threshold=128),
    "negative input_shift": replace(ATTRIBUTES, input_shift=-4, use_clipping_list=(True, False, True)),
    "fine deltas": replace(ATTRIBUTES, input_shift=12),
    "class offsets": replace(ATTRIBUTES, class_offset_list=(0, 3, 6)),
    "strides per axis": replace(ATTRIBUTES, feature_stride_h=(4, 8, 64), feature_stride_w=(8, 32, 16)),
    "areas beyond int32": replace(ATTRIBUTES, anchors=HUGE, use_clipping_list=(False, False, False)),
    "coordinates beyond int16": replace(
        ATTRIBUTES, anchors=HUGE, input_shift=0, nms_threshold=255, use_clipping_list=(False, True, False)
    ),
}


def run(attributes: DetectionAttributes, function: Any) -> Callable[..., tuple[Array, Array]]:
    """The op on maps; the memory of the results is garbage before."""
    tables = [
        exp_table(attributes.input_shift, attributes.exp_output_shift),
        np.array(attributes.anchors, np.int32),
        level_table(attributes, SIZES),
    ]
    capacity = attributes.nms_output_bbox_num
    call = run_prim_func(function)

    def both(scores: list[Array], deltas: list[Array], im_hw: Array) -> tuple[Array, Array]:
        flat = [
            np.concatenate([value.reshape(-1, fields) for value in maps]) for maps, fields in ((scores, 3), (deltas, 4))
        ]
        rows, packed = np.full((capacity, 6), 99, np.int32), np.full(16 * (capacity + 1), 99, np.uint8)
        call(*flat, *tables, im_hw, rows, packed)
        return rows, packed

    return both


def anchor_total(attributes: DetectionAttributes) -> int:
    return sum(h * w * count for (h, w), count in zip(SIZES, attributes.num_anchors, strict=True))


@functools.cache
def op(variant: str) -> Callable[..., tuple[Array, Array]]:
    attributes = VARIANTS[variant]
    return run(attributes, detection_function(attributes, anchor_total(attributes)))


def draw(seed: int, values: list[int] | None, spread: int) -> tuple[list[Array], list[Array]]:
    """Random maps; few score values make ties between classes, anchors and boxes."""
    rng = np.random.default_rng(seed)
    choice = np.array(values or range(-128, 128), np.int8)
    shapes = [(1, *size, count) for size, count in zip(SIZES, ATTRIBUTES.num_anchors, strict=True)]
    scores = [rng.choice(choice, (*shape[:3], 3 * shape[3])) for shape in shapes]
    deltas = [rng.integers(-spread, spread + 1, (*shape[:3], 4 * shape[3])).clip(-128, 127) for shape in shapes]
    return scores, [delta.astype(np.int8) for delta in deltas]


def agrees(call: Callable[..., Any], attributes: DetectionAttributes, maps: Any, im_hw: Array = IM_HW) -> int:
    """Compares every row and byte; returns how many boxes there are."""
    rows, packed = call(*maps, im_hw)
    expected = detection_post_processing(*maps, attributes, im_hw)
    assert np.array_equal(rows, expected)
    assert np.array_equal(packed, pack_hardware(expected))
    return int((expected[:, 5] >= 0).sum())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_setting(variant: str) -> None:
    counts = [
        agrees(op(variant), VARIANTS[variant], draw(seed, values, spread))
        for seed, (values, spread) in enumerate([(None, 40), (None, 128), ([3], 6), ([0, 1, 50], 20), ([126, 127], 3)])
    ]
    assert (max(counts) > 0) == (variant != "nothing can pass"), "a comparison of empty lists says nothing"


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(VARIANTS)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([[3, 4], [-1, 0, 1], [127], [-128, 127], None]),
    st.sampled_from([0, 5, 40, 128]),
    st.tuples(st.integers(0, 200), st.integers(0, 200)),
)
def test_any_maps(variant: str, seed: int, values: list[int] | None, spread: int, im_hw: tuple[int, int]) -> None:
    agrees(op(variant), VARIANTS[variant], draw(seed, values, spread), np.array([im_hw], np.int32))


def test_variants_mean_something() -> None:
    """Each setting changes the result of the same maps, or a wrong constant would pass unseen."""
    few, spread = draw(5, [10, 11, 14], 20), draw(6, None, 128)
    counts = {name: agrees(op(name), VARIANTS[name], few) for name in VARIANTS}
    assert counts["few rows"] == 7
    assert counts["one row"] == 1
    assert counts["any overlap suppresses"] < counts["default"] < counts["no suppression"]
    assert counts["strict margin"] < counts["wide margin"]
    assert agrees(op("only the best score"), VARIANTS["only the best score"], few) == 0
    assert agrees(op("default"), ATTRIBUTES, few, np.zeros((1, 2), np.int32)) == 0, "clipped to nothing"
    rows, _ = op("areas beyond int32")(*few, IM_HW)
    assert (256 * np.prod(rows[:, 2:4].astype(np.int64) - rows[:, :2], axis=1) > 2**31).sum() > 5
    assert counts["areas beyond int32"] < counts["no suppression"], "such boxes have suppressed others"
    rows, packed = op("coordinates beyond int16")(*spread, IM_HW)
    assert (np.abs(rows[:, :4]) > 32767).any()
    count = (rows[:, 5] >= 0).sum()
    sides = packed[16:].reshape(-1, 16)[:count, :8].copy().view("<i2")
    assert np.array_equal(sides, rows[:count, :4].clip(-32768, 32767))


def check_draws(call: Callable[..., Any], attributes: DetectionAttributes) -> None:
    for seed in range(40):
        agrees(call, attributes, draw(seed, [0, 1, 50] if seed % 2 else None, 30))


MUTANTS: list[tuple[str, Callable[[DetectionAttributes], DetectionAttributes]]] = [
    ("strict margin", lambda a: replace(a, nms_margin=-1)),
    ("default", lambda a: replace(a, nms_margin=0)),
    ("default", lambda a: replace(a, nms_threshold=178)),
    ("default", lambda a: replace(a, box_filter_threshold=a.box_filter_threshold + 1)),
    ("few rows", lambda a: replace(a, nms_output_bbox_num=7, nms_threshold=128)),
    ("negative input_shift", lambda a: replace(a, input_shift=-3)),
]


@pytest.mark.parametrize(("variant", "change"), MUTANTS)
def test_mutants_are_noticed(variant: str, change: Callable[[DetectionAttributes], DetectionAttributes]) -> None:
    attributes = VARIANTS[variant]
    mutant = run(attributes, detection_function(change(attributes), anchor_total(attributes)))
    with pytest.raises(AssertionError):
        check_draws(mutant, attributes)


def test_maps_of_different_class_counts_are_refused() -> None:
    attributes = replace(ATTRIBUTES, class_num_list=(3, 2, 3))
    with pytest.raises(CompileError, match=r"class_num_list \(3, 2, 3\).*same number"):
        detection_function(attributes, anchor_total(attributes))
