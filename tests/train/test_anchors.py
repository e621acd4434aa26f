"""Anchors fitted to boxes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from train.data.anchors import best_iou, cluster, fit, iou, main


def test_iou_is_that_of_shifted_rectangles() -> None:
    box, anchor = np.array([[10.0, 20.0]]), np.array([[10.0, 20.0], [20.0, 20.0]])
    assert iou(box, anchor, np.zeros((1, 2))).tolist() == [[1.0, 0.5]]
    assert iou(box, anchor, np.array([[5.0, 0.0]]))[0, 0] == pytest.approx(1 / 3)
    assert iou(box, anchor, np.array([[0.0, 10.0]]))[0, 0] == pytest.approx(1 / 3)
    assert iou(box, anchor, np.array([[5.0, 0.0]]))[0, 1] == pytest.approx(0.5), "still inside"
    assert iou(box, anchor, np.array([[0.0, 50.0]])).max() == 0.0


def test_shapes_of_the_data_are_found() -> None:
    rng = np.random.default_rng(1)
    shapes = np.array([[14.0, 14.0], [40.0, 10.0], [16.0, 34.0]])
    sizes = np.concatenate([shape * rng.uniform(0.95, 1.05, (50, 2)) for shape in shapes])
    assert cluster(sizes, 3, 0) == pytest.approx(shapes[np.argsort(shapes.prod(axis=1))], rel=0.05)


def test_fitted_anchors_are_better_and_strides_without_boxes_keep_theirs() -> None:
    rng = np.random.default_rng(2)
    sizes = np.array([16.0, 16.0]) * rng.uniform(0.8, 1.2, (200, 2))
    known = [np.array([[8.0, 40.0]]), np.array([[30.0, 30.0]])]
    fitted = fit(sizes, (8, 16), known, 0)
    assert np.array_equal(fitted[1], known[1])
    assert best_iou(sizes, (8, 16), fitted, 0).mean() > best_iou(sizes, (8, 16), known, 0).mean() + 0.2


def test_the_command_prints_anchors_for_every_detection(
    tiny_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(tiny_config(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert out.startswith("det_person: ")
    assert out.count("# stride") == 4
    assert main(["--config", str(tmp_path / "none.py")]) == 2
    assert "none.py: no such config file" in capsys.readouterr().err
