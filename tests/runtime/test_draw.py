"""Overlays: what must be seen is there, and nothing falls over at the edges."""

import numpy as np
import pytest

from runtime.artifact import Manifest
from runtime.draw import draw_overlay
from runtime.predict import Detection, Prediction


def overlay(manifest: Manifest, picture: np.ndarray, *found: Detection, mask: np.ndarray | None = None) -> np.ndarray:
    size = picture.shape[:2]
    masks = {"seg_bright": np.zeros(size, np.uint8) if mask is None else mask}
    return draw_overlay(picture, Prediction(size, found, masks), manifest.tasks)


def thing(*box: float, score: float = 0.9) -> Detection:
    return Detection("det_thing", "thing", 0, score, box)


def test_a_box_is_drawn_in_its_class_colour(manifest: Manifest) -> None:
    picture = np.full((300, 400, 3), 90, np.uint8)
    result = overlay(manifest, picture, thing(100, 100, 300, 200))
    for x, y in ((100, 150), (300, 150), (200, 200)):
        window = result[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3)
        assert (np.abs(window.astype(int) - (255, 0, 0)).max(axis=1) < 60).any()
    assert (result[140:160, 150:250] == 90).all()
    assert (picture == 90).all()


def test_a_mask_is_blended_and_the_background_is_not(manifest: Manifest) -> None:
    picture = np.full((300, 400, 3), 100, np.uint8)
    mask = np.zeros((300, 400), np.uint8)
    mask[:, 200:] = 1
    mask[:50] = 255
    result = overlay(manifest, picture, mask=mask)
    assert (result[150, 100] == 100).all()
    assert (result[10, 300] == 100).all()
    red, _, blue = result[150, 300].astype(int)
    assert blue > 100 > red > 0


def test_the_legend_keeps_its_size_whatever_is_found(manifest: Manifest) -> None:
    picture = np.zeros((300, 400, 3), np.uint8)
    empty, full = overlay(manifest, picture), overlay(manifest, picture, thing(10, 10, 50, 50))
    assert empty.shape == full.shape
    assert empty.shape[0] > 300
    assert empty.shape[1] == 400
    assert np.array_equal(empty[300:], full[300:])


@pytest.mark.parametrize("size", [(16, 16), (16, 128), (128, 16), (2000, 3000)])
@pytest.mark.parametrize("corner", ["top left", "bottom right", "all"])
def test_boxes_at_the_edges(manifest: Manifest, size: tuple[int, int], corner: str) -> None:
    height, width = size
    box = {
        "top left": (0.0, 0.0, 2.0, 2.0),
        "bottom right": (width - 2.0, height - 2.0, float(width), float(height)),
        "all": (0.0, 0.0, float(width), float(height)),
    }[corner]
    result = overlay(manifest, np.zeros((height, width, 3), np.uint8), thing(*box))
    assert result.shape[1] == width
    assert result[:height].any()


def test_tasks_that_were_not_asked_for_are_not_drawn(manifest: Manifest) -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    prediction = Prediction((100, 100), (thing(10, 10, 50, 50),), {"seg_bright": np.zeros((100, 100), np.uint8)})
    result = draw_overlay(picture, prediction, manifest.tasks[1:])
    assert not result[:100].any()
