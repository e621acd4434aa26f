"""The reader of the chip's layout gives back what was packed, and refuses what was not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.postprocess import pack_hardware
from runtime.errors import UsageError
from runtime.hardware_layout import read_boxes

coordinate = st.integers(-(2**15), 2**15 - 1)
row = st.tuples(coordinate, coordinate, coordinate, coordinate, st.integers(-128, 127), st.integers(0, 255))


@given(st.lists(row, max_size=12), st.integers(0, 5))
def test_what_was_packed_comes_back(rows: list[tuple[int, ...]], unused: int) -> None:
    boxes = np.array(rows, np.int32).reshape(-1, 6)
    packed = pack_hardware(np.concatenate([boxes, np.full((unused, 6), -1, np.int32)]))
    for data in (packed, packed.tobytes()):
        assert (read_boxes(data) == boxes).all()
        assert read_boxes(data).shape == boxes.shape


def test_the_example_of_the_layout() -> None:
    data = (16).to_bytes(4, "little") + bytes(12) + bytes.fromhex("0080 0200 3412 ff7f f9 c8") + bytes(6)
    assert read_boxes(data).tolist() == [[-32768, 2, 0x1234, 32767, -7, 200]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc", "3 bytes are no boxes"),
        (
            (32).to_bytes(4, "little") + bytes(28),
            "cut off: the header announces 2 boxes, 48 bytes with it, there are 32",
        ),
        ((7).to_bytes(4, "little") + bytes(28), "the header 07000000.* is none"),
        (bytes(4) + b"\1" + bytes(11), "the header .* is none"),
    ],
)
def test_other_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_boxes(data)
