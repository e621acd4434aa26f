"""Losses: anchors' order and targets against slow references, and that perfect outputs cost next to nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs import load
from configs.schema import Config
from train.data.dataset import MaskTargets
from train.losses import AnchorFocalLoss, PixelCrossEntropy, all_anchors, build_losses, cell_labels, match_anchors


@dataclass
class Boxes:
    boxes: Any
    classes: Any
    ignore: Any
    unlabelled: tuple[int, ...] = ()


@pytest.fixture(scope="module")
def config(repository: Path) -> Config:
    return load(repository / "configs/4pe_resize/multitask.py")


def outputs_for(config: Config, name: str, hw: tuple[int, int], batch: int = 1) -> dict[str, torch.Tensor]:
    """Zero deltas and scores of -9."""
    task = config.task(name)
    assert task.kind == "detection"
    result = {}
    for stride in task.head.strides:
        size = (-(-hw[0] // stride), -(-hw[1] // stride))
        result[f"{name}.score_s{stride}"] = torch.full((batch, 3 * len(task.classes), *size), -9.0)
        result[f"{name}.delta_s{stride}"] = torch.zeros(batch, 12, *size)
    return result


def test_every_task_has_its_loss(config: Config) -> None:
    losses = build_losses(config)
    assert list(losses) == [task.name for task in config.tasks]
    assert not list(losses.parameters())


def test_anchor_order_is_stride_row_column_anchor() -> None:
    anchors = all_anchors([[(4, 2), (8, 6)], [(16, 16), (20, 10)]], (8, 16), ((2, 3), (1, 2)))
    assert len(anchors) == 2 * 3 * 2 + 1 * 2 * 2
    assert anchors[0].tolist() == [4, 4, 2, 4]
    assert anchors[1].tolist() == [4, 4, 6, 8]
    assert anchors[2].tolist() == [12, 4, 2, 4]
    assert anchors[6].tolist() == [4, 12, 2, 4]
    assert anchors[-1].tolist() == [24, 8, 10, 20]


def slow_iou(anchor: np.ndarray, box: np.ndarray) -> float:
    x, y, w, h = anchor
    width = min(x + w / 2, box[2]) - max(x - w / 2, box[0])
    height = min(y + h / 2, box[3]) - max(y - h / 2, box[1])
    inter = max(0.0, width) * max(0.0, height)
    return inter / (w * h + (box[2] - box[0]) * (box[3] - box[1]) - inter)


NOTHING = torch.zeros(0, 4)
IOUS = {"positive_iou": 0.5, "negative_iou": 0.4}


@pytest.mark.parametrize("seed", range(20))
def test_matches_are_those_of_the_slow_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    anchors = all_anchors([[(16, 16), (24, 12), (12, 24)]], (8,), ((8, 10),))
    corner = rng.uniform(0, 50, (4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 25, (4, 2))], axis=1).astype(np.float32)
    classes = torch.tensor([0, 1, 2, 3])
    match = match_anchors(anchors, torch.from_numpy(boxes), classes, NOTHING, **IOUS)
    overlaps = np.array([[slow_iou(anchor, box) for box in boxes] for anchor in anchors.numpy()])
    best = overlaps.max(axis=0)
    places = match.positive.nonzero()[:, 0].numpy()
    owners = dict(zip(places.tolist(), match.classes.tolist(), strict=True))
    forced = {box: [place for place, owner in owners.items() if owner == box] for box in range(4)}
    for place, row in enumerate(overlaps):
        if place in owners:
            # a box that it does not overlap most may have it only as that box's best anchor
            own = row[owners[place]]
            assert (own >= 0.5 and own == row.max()) or own >= 0.6 * best[owners[place]] - 1e-6
            assert match.counted[place]
        else:
            assert row.max() < 0.5
            assert bool(match.counted[place]) == all(row < np.maximum(np.minimum(0.4, 0.6 * best), 1e-12))
    for box in range(4):
        taken_by_better = overlaps[overlaps[:, box].argmax()].max() > best[box]
        assert forced[box] or taken_by_better
    found = decode(anchors[match.positive], match.deltas)
    np.testing.assert_allclose(found.numpy(), boxes[match.classes.numpy()], atol=1e-3)


def test_an_anchor_that_fits_one_box_is_not_given_to_another() -> None:
    """The second box is small: all anchors around it are equally bad, and one of them fits the first box."""
    anchors = torch.tensor([[20.0, 20, 20, 20], [32.0, 20, 20, 20], [20.0, 32, 20, 20]])
    boxes = torch.tensor([[10.0, 10, 30, 30], [26.0, 18, 30, 22]])
    match = match_anchors(anchors, boxes, torch.tensor([0, 1]), NOTHING, **IOUS)
    assert match.positive[0]
    assert match.classes[0] == 0
    assert match.classes.tolist().count(1) == 1


def test_of_equally_good_anchors_the_nearest_go_first_and_the_others_are_no_background() -> None:
    anchors = all_anchors([[(32, 32)]], (8,), ((8, 8),))
    small = torch.tensor([[27.0, 27.0, 30.0, 30.0]])
    match = match_anchors(anchors, small, torch.tensor([0]), NOTHING, **IOUS)
    places = anchors[match.positive, :2]
    assert match.positive.sum() == 3
    assert [28.0, 28.0] in places.tolist()
    assert (places - 28.5).abs().max() < 9
    around = (anchors[:, :2] - 28.5).abs().amax(dim=1) < 14
    assert not match.counted[around & ~match.positive].any()
    assert match.counted[~around].sum() > 30


def decode(anchors: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    centres = anchors[:, :2] + deltas[:, :2] * anchors[:, 2:]
    sizes = anchors[:, 2:] * deltas[:, 2:].exp()
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)


def test_ignored_boxes_silence_the_anchors_inside() -> None:
    anchors = all_anchors([[(8, 8)]], (8,), ((8, 8),))
    nobody = torch.zeros(0, dtype=torch.int64)
    match = match_anchors(anchors, NOTHING, nobody, torch.tensor([[0.0, 0.0, 32.0, 16.0]]), **IOUS)
    assert not match.positive.any()
    assert (~match.counted).sum() == 4 * 2


def test_a_small_ignored_box_silences_the_anchors_that_would_find_it() -> None:
    anchors = all_anchors([[(8, 8)], [(64, 64)]], (8, 64), ((8, 8), (1, 1)))
    nobody = torch.zeros(0, dtype=torch.int64)
    match = match_anchors(anchors, NOTHING, nobody, torch.tensor([[17.0, 17.0, 20.0, 21.0]]), **IOUS)
    assert (~match.counted).nonzero()[:, 0].tolist() == [2 * 8 + 2]


def test_perfect_detection_costs_little_and_each_fault_more(config: Config) -> None:
    name, hw = "det_rear", (128, 192)
    loss = build_losses(config)[name]
    assert isinstance(loss, AnchorFocalLoss)
    target = [Boxes(np.array([[40.0, 30, 90, 75], [100, 60, 130, 90]]), np.array([0, 1]), np.array([False, False]))]
    outputs = outputs_for(config, name, hw)
    sizes = tuple(tuple(outputs[f"{name}.score_s{s}"].shape[2:]) for s in (8, 16, 32, 64))
    anchors = all_anchors(loss.task.head.anchors, loss.task.head.strides, sizes)  # type: ignore[arg-type]
    match = loss._match(anchors, target[0])
    scores = torch.full((len(anchors), 2), -9.0)
    scores[match.positive.nonzero()[:, 0], match.classes] = 9.0
    deltas = torch.zeros(len(anchors), 4)
    deltas[match.positive] = match.deltas
    start = 0
    for stride, (rows, columns) in zip((8, 16, 32, 64), sizes, strict=True):
        stop = start + rows * columns * 3
        for part, values in (("score", scores), ("delta", deltas)):
            maps = values[start:stop].reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
            outputs[f"{name}.{part}_s{stride}"] = maps.contiguous()
        start = stop
    perfect = float(loss(outputs, target))
    assert perfect < 0.01
    assert float(loss(outputs_for(config, name, hw), target)) > 1
    swapped = [Boxes(target[0].boxes, 1 - target[0].classes, target[0].ignore)]
    assert float(loss(outputs, swapped)) > 1
    moved = [Boxes(target[0].boxes + 6, target[0].classes, target[0].ignore)]
    assert float(loss(outputs, moved)) > 0.1
    empty = [Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))]
    assert float(loss(outputs_for(config, name, hw), empty)) < 0.01


def test_gradients_reach_scores_everywhere_and_deltas_of_matched_anchors(config: Config) -> None:
    name = "det_person"
    outputs = {key: value.requires_grad_() for key, value in outputs_for(config, name, (128, 128), batch=2).items()}
    target = [Boxes([[20.0, 20, 40, 70]], [0], [False]), Boxes(np.zeros((0, 4)), [], np.zeros(0, bool))]
    build_losses(config)[name](outputs, target).backward()
    deltas = [outputs[f"{name}.delta_s{s}"].grad for s in (8, 16, 32, 64)]
    scores = [outputs[f"{name}.score_s{s}"].grad for s in (8, 16, 32, 64)]
    assert all(grad is not None and (grad[1] == 0).all() for grad in deltas)
    assert any((grad[0] != 0).any() for grad in deltas if grad is not None)
    assert all(grad is not None and (grad != 0).float().mean() > 0.9 for grad in scores)


def test_cells_take_the_label_of_their_middle() -> None:
    labels = torch.arange(8 * 10).reshape(1, 8, 10)
    assert cell_labels(labels, 4, 2, 3).tolist() == [[[22, 26, 29], [62, 66, 69]]]


def test_pixel_loss_leaves_the_unknown_out(config: Config) -> None:
    loss = build_losses(config)["seg_lane"]
    assert isinstance(loss, PixelCrossEntropy)
    target = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    logits = torch.randn(1, 4, 4, 4, requires_grad=True)
    nothing = loss({"seg_lane.logits": logits}, MaskTargets(target, {}))
    assert nothing.item() == 0
    nothing.backward()
    target[:, :8] = 2
    right = torch.zeros(1, 4, 4, 4)
    right[:, 2, :2] = 20
    right[:, 0, 2:] = 20
    assert float(loss({"seg_lane.logits": right}, MaskTargets(target, {}))) < 1e-3
    assert float(loss({"seg_lane.logits": -right}, MaskTargets(target, {}))) > 1
