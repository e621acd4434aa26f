"""The export geometry: the design's table, the exact pyramid, and the way back to within a pixel."""

import dataclasses
import itertools

import numpy as np
import pytest

from runtime.errors import ArtifactError, UsageError
from runtime.geometry import PAD_PIXEL, UNSEEN, Placement
from runtime.schema import InputGeometry, Reader

TABLE = [
    InputGeometry("940x1824", (940, 1824), (470, 912), 22, 0, 48, 448, 960, "resize"),
    InputGeometry("1080x1920", (1080, 1920), (540, 960), 28, 0, 0, 512, 960, "resize"),
    InputGeometry("1080x2280", (1080, 2280), (540, 1140), 28, 0, 0, 512, 1140, "resize"),
]
CROP = InputGeometry("720x1280", (720, 1280), (720, 1280), 104, 32, 0, 512, 1216, "crop")
SIZES = [
    (720, 1280),
    (940, 1824),
    (1080, 1920),
    (1080, 2280),
    (360, 480),
    (375, 1242),
    (541, 961),
    (301, 1999),
    (64, 64),
]
EVERY_CASE = list(itertools.product(SIZES, [*TABLE, CROP]))


def case_id(value: object) -> str:
    return value.geometry + value.variant if isinstance(value, InputGeometry) else str(value)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("geometry", TABLE, ids=case_id)
def test_its_own_size_is_halved_cut_and_padded(geometry: InputGeometry) -> None:
    height, width = geometry.source_hw
    picture = noise(height, width)
    wide = picture.astype(np.int64)
    pyramid = (wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2] + 2) >> 2
    expected = np.full((1, geometry.height, geometry.width, 3), PAD_PIXEL)
    expected[0, :, : width // 2] = pyramid[geometry.cut_top :]
    placement = Placement.of((height, width), geometry)
    result = placement.network_input(picture)
    assert result.dtype == np.uint8
    assert np.array_equal(result, expected)
    assert placement.valid_hw == (geometry.height, geometry.width - geometry.pad_right)
    assert (placement.top, placement.left) == (geometry.cut_top, 0)


def test_the_crop_is_not_scaled() -> None:
    picture = noise(720, 1280)
    result = Placement.of((720, 1280), CROP).network_input(picture)
    assert np.array_equal(result[0], picture[104 : 104 + 512, 32 : 32 + 1216])


@pytest.mark.parametrize("size", SIZES, ids=case_id)
def test_the_crop_follows_the_horizon(size: tuple[int, int]) -> None:
    placement = Placement.of(size, CROP)
    if size[0] >= CROP.height:
        middle = (placement.top + CROP.height / 2) / size[0]
        assert middle == pytest.approx(360 / 720, abs=1 / size[0])
    else:
        assert placement.top == 0


def test_a_flat_picture_is_padded_below_and_a_tall_one_cut_above() -> None:
    geometry = TABLE[0]
    flat = Placement.of((300, 1824), geometry)
    result = flat.network_input(np.zeros((300, 1824, 3), np.uint8))
    assert flat.valid_hw == (150, 912)
    assert not result[0, :150, :912].any()
    assert (result[0, 150:] == PAD_PIXEL).all()
    assert (result[0, :, 912:] == PAD_PIXEL).all()
    tall = Placement.of((1824, 1824), geometry)
    assert (tall.top, tall.valid_hw) == (912 - 448, (448, 912))


@pytest.mark.parametrize(("size", "geometry"), EVERY_CASE, ids=case_id)
def test_one_scale_serves_both_axes(size: tuple[int, int], geometry: InputGeometry) -> None:
    vertical, horizontal = Placement.of(size, geometry).scale
    assert vertical == pytest.approx(horizontal, rel=1 / Placement.of(size, geometry).scaled_hw[0])


@pytest.mark.parametrize(("size", "geometry"), EVERY_CASE, ids=case_id)
def test_a_drawn_box_comes_back_to_within_a_pixel(size: tuple[int, int], geometry: InputGeometry) -> None:
    """The box is painted on the picture, found in the network input, and mapped back.

    What one pixel of the coarser of the two grids cannot show, nobody can find: hence the larger of the two pixels.
    """
    placement = Placement.of(size, geometry)
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    top = round(placement.top * placement.scale[0])  # of the part that the network is shown
    left = round(placement.left * placement.scale[1])
    rows, columns = (round(valid * scale) for valid, scale in zip(placement.valid_hw, placement.scale, strict=True))
    box = (left + columns // 4, top + rows // 4, left + columns * 3 // 4, top + rows * 3 // 4)
    picture[box[1] : box[3], box[0] : box[2]] = 255
    found = placement.network_input(picture)[0, : placement.valid_hw[0], : placement.valid_hw[1], 0] > PAD_PIXEL
    ys, xs = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    quarters = np.array([[xs[0] * 4, ys[0] * 4, (xs[-1] + 1) * 4, (ys[-1] + 1) * 4]], np.int32)
    back = placement.boxes_to_picture(quarters)[0]
    assert np.abs(back - box).max() <= max(1.0, *placement.scale)


@pytest.mark.parametrize(("size", "geometry"), EVERY_CASE, ids=case_id)
def test_a_mask_comes_back_to_within_a_pixel(size: tuple[int, int], geometry: InputGeometry) -> None:
    """A mask at stride 1, holding the column's and then the row's number (of 250), is found where the pixel lies."""
    placement = Placement.of(size, geometry)
    rows, columns = placement.input_hw
    for axis, count in ((0, rows), (1, columns)):
        numbers = (np.arange(count) % 250).astype(np.uint8)
        mask = np.broadcast_to(numbers[:, None] if axis == 0 else numbers, (rows, columns))
        back = placement.mask_to_picture(np.ascontiguousarray(mask), 1)
        assert back.shape == size
        centres = (np.arange(size[axis]) + 0.5) / placement.scale[axis] - (placement.top, placement.left)[axis]
        seen = (centres >= 0) & (centres < placement.valid_hw[axis])
        profile = back.max(axis=1 - axis, where=back != UNSEEN, initial=0)
        inside = (centres[seen] - profile[seen] + 1e-6) % 250  # where in the mask's pixel the picture's centre lies
        assert (inside <= 1 + 2e-6).all()
        unseen = np.take(back, np.flatnonzero(~seen), axis=axis)
        assert (unseen == UNSEEN).all()


def test_boxes_are_clipped_to_the_picture() -> None:
    placement = Placement.of((940, 1824), TABLE[0])
    boxes = placement.boxes_to_picture(np.array([[-40, -400, 3840, 4000]], np.int32))
    assert boxes.tolist() == [[0, 0, 1824, 940]]


def test_padding_never_reaches_a_mask() -> None:
    geometry = TABLE[0]
    mask = np.zeros((112, 240), np.uint8)
    mask[:, 228:] = 9  # the padded columns, 912 to 960
    assert 9 not in Placement.of((940, 1824), geometry).mask_to_picture(mask, 4)


def test_a_picture_of_another_size_is_refused() -> None:
    placement = Placement.of((100, 200), TABLE[0])
    with pytest.raises(UsageError, match="placement is for"):
        placement.network_input(np.zeros((100, 201, 3), np.uint8))


def test_the_crop_may_not_leave_its_source() -> None:
    for change in ({"cut_top": 209}, {"cut_left": 31}, {"width": 1300}):
        with pytest.raises(ArtifactError, match="cut from within source_hw"):
            InputGeometry.from_json(Reader(dataclasses.replace(CROP, **change).to_json(), "config"))
