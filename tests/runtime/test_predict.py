"""The predictor, with a fake engine: rows become boxes, thresholds and tasks are kept."""

import numpy as np
import pytest

from runtime.artifact import Manifest
from runtime.errors import ImageError, UsageError
from runtime.predict import Predictor

# rows: x1, y1, x2, y2 in quarter pixels of the input, score, class; the geometry halves 80x128 and cuts 8 rows
BOX = [40, 20, 80, 60, 16, 1]


def predictor(engine: object, manifest: Manifest, **options: object) -> Predictor:
    return Predictor(engine, manifest.input, manifest.tasks, **options)


def test_a_row_becomes_a_detection(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    engine = fake_engine([BOX])
    prediction = predictor(engine, manifest)(scene)
    (found,) = prediction.detections
    assert (found.task, found.class_name, found.class_index) == ("det_thing", "other thing", 1)
    assert found.score == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert found.box == (20.0, 26.0, 40.0, 46.0)
    assert engine.im_hw == (32, 64)
    assert prediction.picture_hw == (80, 128)
    assert set(prediction.seconds) == {"pre", "inference", "post"}


def test_the_mask_has_the_pictures_size(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    mask = np.zeros((1, 8, 18), np.uint8)
    mask[:, :, 8:] = 1
    result = predictor(fake_engine([], mask), manifest)(scene).masks["seg_bright"]
    assert result.shape == (80, 128)
    assert (result[:16] == 255).all()  # the 8 rows cut from the halved picture
    assert (result[16:, :64] == 0).all()
    assert (result[16:, 64:] == 1).all()


def test_the_threshold_is_that_of_the_shown_score(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    rows = [[*BOX[:4], score, 0] for score in (40, 16, 0, -13)]
    for threshold, count in ((0.0, 4), (0.5, 3), (0.501, 2), (0.9, 1), (1.0, 0)):
        assert len(predictor(fake_engine(rows), manifest, score_threshold=threshold)(scene).detections) == count


def test_boxes_in_the_padding_are_dropped(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    padding = [260, 20, 288, 60, 16, 0]
    empty = [40, 20, 40, 60, 16, 0]
    assert not predictor(fake_engine([padding, empty]), manifest)(scene).detections


def test_only_the_tasks_wanted(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    prediction = predictor(fake_engine([BOX]), manifest, only=["seg_bright"])(scene)
    assert not prediction.detections
    assert list(prediction.masks) == ["seg_bright"]


def test_an_unknown_task_is_named(fake_engine, manifest: Manifest) -> None:
    with pytest.raises(UsageError, match=r"'det_nothing'.*det_thing, seg_bright"):
        predictor(fake_engine([]), manifest, only=["seg_bright", "det_nothing"])


def test_a_tiny_picture_is_refused(fake_engine, manifest: Manifest) -> None:
    with pytest.raises(ImageError, match="1x1 pixels are too few"):
        predictor(fake_engine([]), manifest)(np.zeros((1, 1, 3), np.uint8))
