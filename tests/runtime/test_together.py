"""Two models on one picture: an object is one box, wherever which of them saw it; masks are put together."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.artifact import Manifest
from runtime.errors import UsageError
from runtime.geometry import Placement
from runtime.infer import main
from runtime.predict import Predictor
from runtime.schema import ClassEntry, InputGeometry
from runtime.together import PredictorsTogether, is_cut

# near: the picture of 80x128 halved, 8 rows cut. far: rows 24 to 56 and columns 28 to 100 of the picture as it is
FAR = InputGeometry("80x128", (80, 128), (80, 128), 24, 28, 0, 32, 72, "crop")


def near_row(x1: float, y1: float, x2: float, y2: float, score: int, index: int = 0) -> list[float]:
    """A row of the near model's output for a box in the picture's pixels."""
    return [2 * x1, 2 * (y1 - 16), 2 * x2, 2 * (y2 - 16), score, index]


def far_row(x1: float, y1: float, x2: float, y2: float, score: int, index: int = 0) -> list[float]:
    """The same of the far model."""
    return [4 * (x1 - 28), 4 * (y1 - 24), 4 * (x2 - 28), 4 * (y2 - 24), score, index]


def together(
    fake_engine, manifest: Manifest, near: list, far: list, *, masks: tuple = (None, None), only: list | None = None
) -> PredictorsTogether:
    engines = fake_engine(near, masks[0]), fake_engine(far, masks[1])
    predictors = [Predictor(e, g, manifest.tasks) for e, g in zip(engines, (manifest.input, FAR), strict=True)]
    return PredictorsTogether(predictors, only)


def test_an_object_that_both_find_is_the_surer_box(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    near, far = near_row(50, 30, 60, 50, 10), far_row(50, 31, 60, 50, 20)
    (found,) = together(fake_engine, manifest, [near], [far])(scene).detections
    assert found.box == (50, 31, 60, 50)
    (found,) = together(fake_engine, manifest, [[*near[:4], 30, 0]], [far])(scene).detections
    assert found.box == (50, 30, 60, 50)


def test_what_only_one_finds_stays_surest_first(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    merged = together(fake_engine, manifest, [near_row(2, 30, 20, 60, 10)], [far_row(50, 30, 60, 50, 20)])(scene)
    assert [found.box for found in merged.detections] == [(50, 30, 60, 50), (2, 30, 20, 60)]
    assert merged.picture_hw == (80, 128)
    assert set(merged.seconds) == {"pre", "inference", "post"}


def test_a_part_at_the_windows_edge_gives_way_to_the_whole(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    whole, part = near_row(2, 20, 60, 70, 5), far_row(28, 24, 60, 56, 60)
    (found,) = together(fake_engine, manifest, [whole], [part])(scene).detections
    assert found.box == (2, 20, 60, 70)


def test_a_part_may_end_a_little_before_the_windows_edge(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    """A far model's pixel is one of the picture: 3 % of a side of 70 are more than two of them."""
    geometry = dataclasses.replace(FAR, height=72, cut_top=4)
    placement = Placement.of((80, 128), geometry)
    assert placement.window == (28, 4, 100, 76)
    assert is_cut((30.05, 10, 99, 70), placement)
    assert not is_cut((30.05, 10, 60, 70), placement)


def test_a_part_that_nobody_sees_the_whole_of_stays(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    (found,) = together(fake_engine, manifest, [], [far_row(28, 24, 60, 56, 60)])(scene).detections
    assert found.box == (28, 24, 60, 56)


def test_a_small_object_before_a_large_one_stays(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    large, small = near_row(20, 20, 110, 76, 30), far_row(60, 40, 70, 50, 20)
    assert len(together(fake_engine, manifest, [large], [small])(scene).detections) == 2


def test_classes_do_not_suppress_each_other(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    boxes = [near_row(50, 30, 60, 50, 10, 0)], [far_row(50, 30, 60, 50, 20, 1)]
    names = [found.class_name for found in together(fake_engine, manifest, *boxes)(scene).detections]
    assert names == ["other thing", "thing"]


def test_an_edge_of_the_picture_is_none_of_the_window() -> None:
    """641 · (900 / 641) is a little under 900: the picture's lower edge must not count as one within it."""
    geometry = InputGeometry("1080x2280", (1080, 2280), (540, 1140), 28, 0, 0, 512, 1140, "resize")
    placement = Placement.of((900, 1600), geometry)
    assert placement.window[3] < 900
    assert not is_cut((100.0, 700.0, 200.0, 900.0), placement)
    assert is_cut((100.0, placement.window[1], 200.0, 800.0), placement)


box = st.tuples(st.integers(0, 100), st.integers(16, 70), st.integers(4, 40), st.integers(4, 30), st.integers(-8, 90))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(near=st.lists(box, max_size=8), far=st.lists(box, max_size=8))
def test_no_two_boxes_of_a_class_overlap_more_than_the_threshold(
    fake_engine, manifest: Manifest, scene: np.ndarray, near: list, far: list
) -> None:
    rows = [
        [make(x, y, x + w, y + h, score) for x, y, w, h, score in boxes]
        for make, boxes in ((near_row, near), (far_row, far))
    ]
    found = together(fake_engine, manifest, *rows)(scene).detections
    scores = [entry.score for entry in found]
    assert scores == sorted(scores, reverse=True)
    for index, first in enumerate(found):
        for second in found[:index]:
            a, b = np.array(first.box), np.array(second.box)
            common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
            union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common
            assert common / union <= manifest.tasks[0].nms_threshold / 256


def test_masks_are_the_far_models_where_it_looks(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    masks = np.zeros((1, 8, 18), np.uint8), np.ones((1, 8, 18), np.uint8)
    mask = together(fake_engine, manifest, [], [], masks=masks)(scene).masks["seg_bright"]
    expected = np.zeros((80, 128), np.uint8)
    expected[:16] = 255  # shown to neither
    expected[24:56, 28:100] = 1
    assert (mask == expected).all()


def test_other_classes_under_one_name_are_refused(fake_engine, manifest: Manifest) -> None:
    other = dataclasses.replace(manifest.tasks[1], classes=(ClassEntry("dark", (0, 0, 0)),))
    predictors = [Predictor(fake_engine([]), manifest.input, tasks) for tasks in (manifest.tasks, (other,))]
    with pytest.raises(
        UsageError, match=r"'seg_bright' differ: segmentation of background, bright and segmentation of dark"
    ):
        PredictorsTogether(predictors)
    assert [task.name for task in PredictorsTogether(predictors, ["det_thing"]).tasks] == ["det_thing"]


def test_a_task_of_one_model_alone(fake_engine, manifest: Manifest, scene: np.ndarray) -> None:
    tasks = manifest.tasks, manifest.tasks[1:]
    predictors = [Predictor(fake_engine([near_row(50, 30, 60, 50, 10)]), manifest.input, entry) for entry in tasks]
    assert [task.name for task in PredictorsTogether(predictors).tasks] == ["det_thing", "seg_bright"]
    boxes = PredictorsTogether(predictors, ["det_thing"])
    assert len(boxes.predictors) == 1
    assert len(boxes(scene).detections) == 1
    with pytest.raises(UsageError, match="no task 'det_nothing'"):
        PredictorsTogether(predictors, ["det_nothing"])


def test_the_command_takes_two_models(
    library: Path, rebuilt_library: Path, tmp_path: Path, write, scene: np.ndarray
) -> None:
    """They return the same box, with scores 32 and 48 of 16 to a unit."""
    for name in ("a.png", "b.png"):
        write(f"in/{name}", scene)
    arguments = ["--model", str(library), "--model", str(rebuilt_library), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--images", str(tmp_path / "in")]) == 0
    data = json.loads((tmp_path / "out/results.json").read_text())
    assert data["model"] == f"{library}, {rebuilt_library}"
    assert [[found["score"] for found in entry["detections"]] for entry in data["images"]] == [[0.9526]] * 2
