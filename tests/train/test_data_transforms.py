"""Transforms: sizes of the design, boxes and masks that follow the pixels."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.samples import Boxes, Sample
from train.data.transforms import Augment, change_colours, crop, flip, min_max_size, resize


def square(height: int, width: int, box: tuple[int, int, int, int]) -> Sample:
    """A white rectangle on black, with its box and mask."""
    x1, y1, x2, y2 = box
    picture = np.zeros((height, width, 3), np.uint8)
    picture[y1:y2, x1:x2] = 255
    mask = (picture[:, :, 0] > 0).astype(np.uint8)
    return Sample(picture, {"d": Boxes.of([(*box, 0, False)])}, {"s": mask})


def bounds(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero((mask == 1).any(axis=1)), np.flatnonzero((mask == 1).any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ((720, 1280), (540, 960)),
        ((940, 1824), (540, 1048)),
        ((1080, 1920), (540, 960)),
        ((1080, 2280), (540, 1140)),
        ((360, 480), (540, 720)),
        ((500, 2000), (285, 1140)),
        ((1280, 720), (960, 540)),
    ],
)
def test_min_max_pairs(source: tuple[int, int], want: tuple[int, int]) -> None:
    assert min_max_size(source, (540, 1140)) == want


def test_resize_takes_boxes_and_masks_along() -> None:
    sample = resize(square(100, 200, (40, 20, 120, 60)), (50, 100))
    assert sample.boxes["d"].boxes.tolist() == [[20, 10, 60, 30]]
    assert bounds(sample.masks["s"]) == [20, 10, 60, 30]
    assert bounds((sample.picture[:, :, 0] > 127).astype(np.uint8)) == [20, 10, 60, 30]


def test_crop_moves_and_cuts_boxes() -> None:
    sample = crop(square(100, 200, (40, 20, 120, 60)), 10, 50, (64, 96))
    assert sample.boxes["d"].boxes.tolist() == [[0, 10, 70, 50]] == [bounds(sample.masks["s"])]
    assert not sample.boxes["d"].ignore[0]


def test_crop_pads_with_grey_and_ignore() -> None:
    sample = crop(square(30, 40, (5, 5, 10, 10)), 0, 0, (50, 60))
    assert (sample.picture[30:] == 128).all()
    assert (sample.picture[:, 40:] == 128).all()
    assert (sample.masks["s"][30:] == 255).all()
    assert (sample.masks["s"][:, 40:] == 255).all()
    assert (sample.masks["s"][:30, :40] != 255).all()


def test_a_box_that_is_mostly_cut_off_is_ignored_and_one_outside_dropped() -> None:
    assert crop(square(100, 200, (40, 20, 120, 60)), 0, 100, (64, 96)).boxes["d"].ignore.tolist() == [True]
    assert len(crop(square(100, 200, (40, 20, 60, 60)), 0, 100, (64, 96)).boxes["d"].boxes) == 0


def test_flip_mirrors_boxes_with_the_pixels() -> None:
    sample = flip(square(100, 200, (40, 20, 120, 60)))
    assert sample.boxes["d"].boxes.tolist() == [[80, 20, 160, 60]] == [bounds(sample.masks["s"])]
    assert np.array_equal(flip(sample).picture, square(100, 200, (40, 20, 120, 60)).picture)


def test_colours() -> None:
    picture = np.array([[[100, 50, 0], [200, 255, 255]]], np.uint8)
    assert change_colours(picture, 1.0, 1.0, 1.0) is picture
    assert change_colours(picture, 1.5, 1.0, 1.0).tolist() == [[[150, 75, 0], [255, 255, 255]]]
    grey = change_colours(picture, 1.0, 1.0, 0.0)
    assert (grey[:, :, 0] == grey[:, :, 2]).all()
    assert change_colours(picture, 1.0, 0.5, 1.0).tolist() == [[[114, 89, 64], [164, 192, 192]]]


def test_augmentation_is_a_function_of_its_draw_and_keeps_boxes_on_the_pixels() -> None:
    knobs = SimpleNamespace(flip_probability=0.5, scale=(0.7, 1.4), brightness=0.2, contrast=0.2, saturation=0.2)
    augment = Augment((96, 128), knobs)
    sample = square(120, 200, (60, 30, 140, 90))
    pictures = set()
    for draw in range(30):
        once, again = augment(sample, draw), augment(sample, draw)
        assert np.array_equal(once.picture, again.picture)
        assert once.picture.shape == (96, 128, 3)
        assert (once.picture[once.masks["s"] == 255] == 128).all(), "padding has been coloured"
        pictures.add(once.picture.tobytes())
        if len(once.boxes["d"].boxes):
            assert np.abs(once.boxes["d"].boxes[0] - bounds(once.masks["s"])).max() <= 1
    assert len(pictures) == 30


@st.composite
def scenes(draw: st.DrawFn) -> Sample:
    """Rectangles that do not touch, each of its own class, colour and value of the mask, one in a quarter at most."""
    height, width = draw(st.integers(80, 200)), draw(st.integers(80, 260))
    picture, mask = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    rows = []
    for index, (top, left) in enumerate([(0, 0), (0, width // 2), (height // 2, 0), (height // 2, width // 2)]):
        y1, x1 = top + draw(st.integers(2, 16)), left + draw(st.integers(2, 16))
        y2, x2 = y1 + draw(st.integers(4, height // 2 - 20)), x1 + draw(st.integers(4, width // 2 - 20))
        picture[y1:y2, x1:x2] = 60 * (index + 1)
        mask[y1:y2, x1:x2] = index + 1
        rows.append((x1, y1, x2, y2, index, False))
    return Sample(picture, {"d": Boxes.of(rows)}, {"s": mask})


@settings(max_examples=60)
@given(
    sample=scenes(),
    draw_number=st.integers(0, 2**32 - 1),
    low=st.floats(0.5, 1.0),
    high=st.floats(1.0, 1.9),
    crop_hw=st.tuples(st.integers(64, 160), st.integers(64, 200)),
)
def test_whatever_is_drawn_boxes_masks_and_pixels_agree(
    sample: Sample, draw_number: int, low: float, high: float, crop_hw: tuple[int, int]
) -> None:
    knobs = SimpleNamespace(flip_probability=0.5, scale=(low, high), brightness=0.0, contrast=0.0, saturation=0.0)
    changed = Augment(crop_hw, knobs)(sample, draw_number)
    boxes, mask = changed.boxes["d"], changed.masks["s"]
    assert changed.picture.shape == (*crop_hw, 3)
    assert mask.shape == crop_hw
    for box, index, ignored in zip(boxes.boxes, boxes.classes.tolist(), boxes.ignore.tolist(), strict=True):
        assert (box >= 0).all()
        assert (box <= [crop_hw[1], crop_hw[0]] * 2).all()
        if not ignored and (box[2:] - box[:2]).min() >= 3:
            assert np.abs(box - bounds((mask == index + 1).astype(np.uint8))).max() <= 1
    for index in set(range(4)) - set(boxes.classes.tolist()):
        assert (mask == index + 1).sum() <= 2 * max(crop_hw), "a line at the edge, by rounding"
    for index in range(4):
        inside = cv2.erode((mask == index + 1).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0)
        assert (np.abs(changed.picture[inside == 1].astype(int) - 60 * (index + 1)) <= 1).all()
    assert (changed.picture[mask == 255] == 128).all()
