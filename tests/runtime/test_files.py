"""Names of outputs: one for every input, and none that a file system refuses."""

import os

import pytest

from runtime.files import distinct_stems


def test_names_are_distinct() -> None:
    assert distinct_stems(["x", "x", "x-2", "y"]) == ["x", "x-2", "x-2-2", "y"]


@pytest.mark.parametrize("letter", ["x", "ä", "路"])
def test_long_names_stay_distinct_and_leave_room_for_a_suffix(letter: str) -> None:
    """What a file without suffix may be called, several times over."""
    stem = letter * (255 // len(letter.encode()))
    names = distinct_stems([stem] * 12)
    assert len(set(names)) == 12
    assert all(len(os.fsencode(f"{name}.jpg")) <= 255 for name in names)
    assert all(name.rstrip("-0123456789") == stem[: len(name.rstrip("-0123456789"))] for name in names)


def test_bytes_that_are_no_text() -> None:
    assert distinct_stems([os.fsdecode(b"\xff\xfe")]) == [os.fsdecode(b"\xff\xfe")]
