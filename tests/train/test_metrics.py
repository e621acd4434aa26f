"""The metrics against independent oracles: pycocotools for boxes, torchmetrics for masks, and cases done by hand."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.classification import MulticlassJaccardIndex

from train.metrics import SIZES, BoxMetric, PixelMetric

NONE = np.zeros((0, 4)), np.zeros(0, int)


def scene(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    corner = rng.uniform(0, 200, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(10, 140, (count, 2))], axis=1), rng.integers(0, 2, count)


def pycocotools(truth: list[dict], found: list[dict], images: int) -> COCOeval:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": index + 1} for index in range(images)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_what_took_in_another_metric_equals_one_of_all_pictures() -> None:
    rng = np.random.default_rng(3)
    boxes, pixels = ([kind() for _ in range(3)] for kind in (lambda: BoxMetric("ab"), lambda: PixelMetric("ab", 9)))
    for number in (1, 1, 1, 2, 2, 2):
        truth, noise = scene(rng, 4), scene(rng, 9)
        found = np.concatenate([truth[0] + rng.normal(0, 6, (4, 4)), noise[0]])
        picture = *truth, rng.random(4) < 0.2, found, np.concatenate([truth[1], noise[1]]), rng.random(13).round(1)
        masks = rng.integers(0, 2, (2, 5, 7))
        for index in (0, number):
            boxes[index].add(*picture)
            pixels[index].add(*masks)
    assert boxes[1].result() != boxes[0].result()
    for everything, first, second in (boxes, pixels):
        second.result()  # to be asked for it does not change it
        first.extend(second)
        assert first.result() == everything.result()


def test_box_metric_equals_pycocotools() -> None:
    rng = np.random.default_rng(0)
    metric = BoxMetric(["a", "b"])
    truth, found = [], []
    for image in range(1, 13):
        boxes, classes = scene(rng, 6)
        crowd = rng.random(6) < 0.2
        kept = rng.random(6) < 0.8
        noise, noise_classes = scene(rng, 3)
        guesses = np.concatenate([boxes[kept] + rng.normal(0, 4, (kept.sum(), 4)), noise])
        guess_classes = np.concatenate([classes[kept], noise_classes])
        scores = rng.random(len(guesses))
        metric.add(boxes, classes, crowd, guesses, guess_classes, scores)
        for box, index, ignored in zip(boxes, classes, crowd, strict=True):
            width, height = box[2:] - box[:2]
            truth.append(
                {"id": len(truth) + 1, "image_id": image, "category_id": int(index) + 1, "area": width * height}
            )
            truth[-1] |= {"bbox": [*box[:2], width, height], "iscrowd": int(ignored)}
        for box, index, score in zip(guesses, guess_classes, scores, strict=True):
            found.append({"image_id": image, "category_id": int(index) + 1, "score": float(score)})
            found[-1] |= {"bbox": [*box[:2], *(box[2:] - box[:2])]}
    oracle = pycocotools(truth, found, 12)
    result = metric.result()
    assert 10 < result["map"] < 90
    assert (result["map"], result["map50"]) == pytest.approx(tuple(100 * oracle.stats[:2]), abs=1e-9)
    sizes = oracle.eval["precision"][0, :, :, 1:, -1]
    expected = {name: pytest.approx(100 * sizes[..., index].mean()) for index, name in enumerate(SIZES)}
    assert metric.map50_by_size() == expected
    assert len({*metric.map50_by_size().values(), result["map50"]}) == 4


def test_perfect_boxes_give_100_and_an_unlabelled_class_gives_nothing() -> None:
    metric = BoxMetric(["a", "b"])
    boxes = np.array([[1.0, 2.0, 30.0, 40.0]])
    metric.add(boxes, np.array([0]), np.array([False]), boxes, np.array([0]), np.array([0.9]))
    result = metric.result()
    assert result["map"] == pytest.approx(100.0)
    assert result["per_class"]["b"] == {"map": None, "map50": None}


def test_no_boxes_found_gives_0_and_none_to_find_gives_nothing() -> None:
    metric = BoxMetric(["a"])
    metric.add(np.array([[1.0, 2.0, 30.0, 40.0]]), np.array([0]), np.array([False]), *NONE, np.zeros(0))
    assert metric.result()["map"] == 0.0
    empty = BoxMetric(["a"])
    empty.add(*NONE, np.zeros(0, bool), *NONE, np.zeros(0))
    assert empty.result()["map"] is None


def test_pixel_metric_equals_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    metric = PixelMetric(["a", "b", "c", "d"], 255)
    oracle = MulticlassJaccardIndex(4, ignore_index=255, average="none")
    for _ in range(4):
        truth = rng.integers(0, 4, (30, 40)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.1] = 255
        found = np.where(rng.random(truth.shape) < 0.7, truth % 4, rng.integers(0, 4, truth.shape)).astype(np.uint8)
        metric.add(truth, found)
        oracle.update(torch.from_numpy(found.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)))
    per_class = [entry["miou"] for entry in metric.result()["per_class"].values()]
    assert per_class == pytest.approx((oracle.compute() * 100).tolist(), rel=1e-6)
    assert metric.result()["miou"] == pytest.approx(sum(per_class) / 4)


def test_a_class_without_labels_does_not_enter_the_mean() -> None:
    metric = PixelMetric(["a", "b", "c"], 255)
    metric.add(np.array([[0, 0, 1, 255, 1]], np.uint8), np.array([[0, 2, 1, 2, 255]], np.uint8))
    assert metric.result() == {
        "miou": 75.0,
        "per_class": {"a": {"miou": 50.0}, "b": {"miou": 100.0}, "c": {"miou": None}},
    }


def test_lines_are_one_class_for_f1_and_iou() -> None:
    metric = PixelMetric(["background", "solid", "dashed"], 255, lines=True)
    metric.add(np.array([[1, 1, 2, 0, 0, 255]]), np.array([[1, 2, 0, 1, 0, 1]]))
    result = metric.result()
    assert result["line_iou"] == pytest.approx(100 * 2 / 4), "solid taken for dashed is a line all the same"
    assert result["line_f1"] == pytest.approx(100 * 4 / 6)
    assert PixelMetric(["background", "line"], 255, lines=True).result()["line_f1"] is None


def test_curves_are_those_of_the_average_precision() -> None:
    metric = BoxMetric(["person", "light"])
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float64)
    found = np.array([[0, 0, 10, 10], [50, 0, 60, 10], [20, 0, 30, 10]], np.float64)
    none = np.zeros(2, bool)
    metric.add(truth, np.zeros(2, int), none, found, np.zeros(3, int), np.array([0.9, 0.8, 0.7]))
    curves = metric.curves()
    assert set(curves) == {"person"}, "of a class without a label there is nothing to draw"
    assert curves["person"].shape == (101,)
    assert curves["person"][0] == 100
    assert curves["person"][-1] == pytest.approx(200 / 3)
    assert curves["person"].mean() == pytest.approx(metric.result()["per_class"]["person"]["map50"])
