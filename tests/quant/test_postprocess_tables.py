"""What surrounds the detection op: tables, thresholds, attributes from a task, the chip's layout of boxes."""

import math
from typing import Any

import numpy as np
import pytest

from quant.postprocess import detection_attributes, exp_table, filter_threshold, pack_hardware, sigmoid_table

TASK: dict[str, Any] = {
    "classes": ["a", "b"],
    "strides": [8, 16],
    "anchors": [[[20.0, 8.5], [25.3, 30.1]], [[90.0, 60.0], [60.0, 90.0]]],
    "score_threshold": 0.5,
    "use_clipping": True,
    "nms_threshold": 179,
    "nms_margin": -1,
    "nms_output_bbox_num": 100,
}


@pytest.mark.parametrize("shift", range(-4, 13))
def test_exp_table(shift: int) -> None:
    table = exp_table(shift)
    assert table.dtype == np.int32
    for q in range(-128, 128):
        assert table[q + 128] == math.floor(min(65535.0, math.exp(min(q / 2.0**shift, 20)) * 2048))


def test_exp_table_of_the_chip() -> None:
    """Entries one can compute by hand: e^0, the floor on both sides, the cap."""
    table = exp_table(5)
    assert table[128] == 2048
    assert table[129] == 2113  # e^(1/32) · 2048 = 2113.01
    assert table[127] == 1984  # e^(-1/32) · 2048 = 1984.99
    assert table[0] == 37  # e^-4 · 2048 = 37.51
    assert table[255] == 65535


def test_attributes_of_a_task() -> None:
    attributes = detection_attributes(TASK, score_shift=4, delta_shift=5)
    assert attributes.anchors == ((80, 34), (101, 120), (360, 240), (240, 360)), "quarter pixels"
    assert attributes.anchor_start_addr == (0, 2)
    assert attributes.num_anchors == attributes.class_num_list == (2, 2)
    assert attributes.feature_stride_h == attributes.feature_stride_w == (8, 16)
    assert attributes.box_filter_threshold == 0
    assert (attributes.exp_output_shift, attributes.input_shift) == (11, 5)


@pytest.mark.parametrize("shift", range(-4, 13))
def test_sigmoid_table_and_threshold(shift: int) -> None:
    table = sigmoid_table(shift)
    assert table.dtype == np.float32
    assert table[128] == 0.5
    assert (np.diff(table) >= 0).all()
    assert 0 <= table.min() < 0.5 < table.max() <= 1
    exact = 1 / (1 + np.exp(-np.clip(np.arange(-128, 128) * 2.0**-shift, -700, 700)))
    assert np.allclose(table, exact, rtol=1e-6, atol=1e-37)
    for probability in (0.01, 0.3, 0.5, 0.9):
        threshold = filter_threshold(probability, shift)
        assert (table[: threshold + 128] < probability).all()
        assert (table[threshold + 128 :] >= probability).all()


def test_hardware_layout() -> None:
    rows = np.full((3, 6), -1, np.int32)
    rows[0] = [-40000, 2, 0x1234, 40000, -7, 200]
    rows[1] = [0, 0, 4, 4, 127, 1]
    packed = pack_hardware(rows)
    assert packed.dtype == np.uint8
    assert packed.shape == (64,)
    assert bytes(packed[:16]) == (32).to_bytes(4, "little") + bytes(12)
    assert bytes(packed[16:32]) == bytes.fromhex("0080 0200 3412 ff7f f9 c8") + bytes(6)
    assert bytes(packed[32:48]) == bytes.fromhex("0000 0000 0400 0400 7f 01") + bytes(6)
    assert not packed[48:].any()
    assert not pack_hardware(np.full((100, 6), -1, np.int32)).any()
