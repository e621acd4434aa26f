"""Losses of the tasks, by the `kind` of their config entries, and the anchors' targets.

A detection target is a sequence with one entry per picture that has `boxes` (n, 4) x1, y1, x2, y2 in pixels of the
network's input, `classes` (n,), `ignore` (n,): boxes that neither attract nor repel anchors, and `unlabelled`: classes
whose scores have no say at all. A segmentation target has `labels` (N, H, W), the class of each pixel of the network's
input, 255 where none is known, and `either`, the classes that the pixels of some other values may be of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema import IGNORE_LABEL, Config
from configs.task import DetectionTask, SegmentationTask
from quant import processes

FORCED = 3  # anchors that a box gets at most if none reaches positive_iou: the best one, and others
CLOSE = 0.6  # that overlap it by this share of what the best one does; no closer one is background
CENTRE_WEIGHT = 1e-3  # a small box has one IoU with all anchors around it: the nearest centre goes first
IGNORED_SHARE = 0.5  # an anchor with this share of its area in an ignored box is no background


class BoxTarget(Protocol):
    """Boxes of one picture; arrays or tensors."""

    boxes: Any
    classes: Any
    ignore: Any
    unlabelled: Sequence[int]


class MaskTarget(Protocol):
    """Masks of a batch."""

    labels: Tensor
    either: Mapping[int, tuple[int, ...]]


def build_losses(config: Config) -> nn.ModuleDict:
    """Loss module of every task, by its name: (outputs by exported name, target) to a scalar."""
    return nn.ModuleDict(
        {
            task.name: AnchorFocalLoss(task) if isinstance(task, DetectionTask) else PixelCrossEntropy(task)
            for task in config.tasks
        }
    )


class PixelCrossEntropy(nn.Module):
    """Cross-entropy of the logits with the label at the middle of each cell.

    A label that stands for several classes costs -log of their common probability (as in learning from partial labels),
    weighted as the first of them.
    """

    weights: Tensor | None

    def __init__(self, task: SegmentationTask) -> None:
        super().__init__()
        self.output = task.output_names[0]
        self.stride = task.head.stride
        self.factor = task.loss.weight
        weights = task.loss.class_weights
        self.register_buffer("weights", None if weights is None else torch.tensor(weights))

    def forward(self, outputs: Mapping[str, Tensor], target: MaskTarget) -> Tensor:
        """Mean over the labelled cells, weighted by their classes; 0 if there is none."""
        logits = outputs[self.output].float()
        labels = cell_labels(target.labels, self.stride, logits.shape[2], logits.shape[3])
        exact = labels
        for value in target.either:
            exact = exact.masked_fill(labels == value, IGNORE_LABEL)
        total = functional.cross_entropy(logits, exact, self.weights, ignore_index=IGNORE_LABEL, reduction="sum")
        known = exact[exact != IGNORE_LABEL]
        weight = known.numel() if self.weights is None else self.weights[known].sum()
        for value, classes in target.either.items():
            several = (labels == value).nonzero(as_tuple=True)
            found = logits.permute(0, 2, 3, 1)[several]
            factor = 1.0 if self.weights is None else self.weights[classes[0]]
            total = total - factor * (found[:, classes].logsumexp(dim=1) - found.logsumexp(dim=1)).sum()
            weight = weight + factor * len(found)
        everywhere = processes.mean(torch.as_tensor(weight, dtype=total.dtype, device=total.device))
        return self.factor * total / everywhere.clamp_min(1e-6)


def cell_labels(target: Tensor, stride: int, rows: int, columns: int) -> Tensor:
    """(N, H, W) labels of pixels to (N, rows, columns) int64 of cells of `stride` pixels: that of the middle pixel."""

    def middles(count: int, size: int) -> Tensor:
        return (torch.arange(count, device=target.device) * stride + stride // 2).clamp_max(size - 1)

    return target[:, middles(rows, target.shape[1])][:, :, middles(columns, target.shape[2])].long()


class AnchorFocalLoss(nn.Module):
    """Focal loss of the scores, smooth L1 of the deltas of matched anchors; both per matched anchor of the batch."""

    def __init__(self, task: DetectionTask) -> None:
        super().__init__()
        self.task = task
        self._anchors: dict[tuple[Any, ...], Tensor] = {}

    def forward(self, outputs: Mapping[str, Tensor], target: Sequence[BoxTarget]) -> Tensor:
        """Scalar; a batch without boxes has a loss, too: that of its background."""
        name, head, loss = self.task.name, self.task.head, self.task.loss
        score_maps = [outputs[f"{name}.score_s{stride}"] for stride in head.strides]
        delta_maps = [outputs[f"{name}.delta_s{stride}"] for stride in head.strides]
        scores = _per_anchor(score_maps, len(self.task.classes))
        deltas = _per_anchor(delta_maps, 4)
        sizes = tuple((entry.shape[2], entry.shape[3]) for entry in score_maps)
        anchors = self._anchors_for(sizes, scores.device)
        with torch.no_grad():
            matches = [self._match(anchors, entry) for entry in target]
            counted = torch.stack([match.counted for match in matches])
            positive = torch.stack([match.positive for match in matches])
            wanted = torch.cat([match.classes for match in matches])
            wanted_deltas = torch.cat([match.deltas for match in matches])
            hot = torch.zeros_like(scores)
            pictures, places = positive.nonzero(as_tuple=True)
            hot[pictures, places, wanted] = 1.0
            # of all processes' batches: the mean of their losses is then the loss of one batch of all their pictures
            count = processes.mean(scores.new_tensor(len(wanted))).clamp_min(1 / processes.count())
            known = torch.ones(len(target), 1, scores.shape[2], device=scores.device)
            for picture, entry in enumerate(target):
                known[picture, 0, list(entry.unlabelled)] = 0.0
        focal = sigmoid_focal(scores, hot, alpha=loss.alpha, gamma=loss.gamma)
        score_loss = (focal * counted[..., None] * known).sum() / count
        delta_loss = functional.smooth_l1_loss(deltas[positive], wanted_deltas, beta=loss.delta_beta, reduction="sum")
        return loss.weight * (score_loss + loss.delta_weight * delta_loss / count)

    def _anchors_for(self, sizes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
        key = (*sizes, device)
        if key not in self._anchors:
            self._anchors[key] = all_anchors(self.task.head.anchors, self.task.head.strides, sizes).to(device)
        return self._anchors[key]

    def _match(self, anchors: Tensor, target: BoxTarget) -> "Match":
        loss = self.task.loss
        device = anchors.device
        boxes = torch.as_tensor(target.boxes, dtype=torch.float32, device=device).reshape(-1, 4)
        classes = torch.as_tensor(target.classes, dtype=torch.int64, device=device).reshape(-1)
        ignore = torch.as_tensor(target.ignore, dtype=torch.bool, device=device).reshape(-1)
        return match_anchors(
            anchors,
            boxes[~ignore],
            classes[~ignore],
            boxes[ignore],
            positive_iou=loss.positive_iou,
            negative_iou=loss.negative_iou,
        )


def sigmoid_focal(scores: Tensor, hot: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Element-wise focal loss of logits against 0 or 1; same shape."""
    cross_entropy = functional.binary_cross_entropy_with_logits(scores, hot, reduction="none")
    probability = scores.sigmoid()
    wrong = probability + hot - 2 * probability * hot
    return (1 - alpha + (2 * alpha - 1) * hot) * wrong.pow(gamma) * cross_entropy


def all_anchors(
    anchors: Sequence[Sequence[tuple[float, float]]], strides: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> Tensor:
    """Anchors (A, 4) as centre x, centre y, w, h in pixels, in the order of strides, rows, columns, cell's anchors.

    anchors: per stride the (h, w) of each; sizes: per stride the map's (rows, columns).
    """
    parts = []
    for shapes, stride, (rows, columns) in zip(anchors, strides, sizes, strict=True):
        sizes_wh = torch.tensor([(width, height) for height, width in shapes])
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres = (torch.stack([x, y], dim=-1).float() + 0.5) * stride
        count = len(shapes)
        both = (centres[:, :, None].expand(-1, -1, count, -1), sizes_wh.expand(rows, columns, count, 2))
        parts.append(torch.cat(both, dim=-1).reshape(-1, 4))
    return torch.cat(parts)


@dataclass(frozen=True)
class Match:
    """`positive` (A,) matched anchors, `counted` (A,) those with a say in the score loss.

    Classes (P,) and deltas (P, 4) are those of the P positive ones in their order.
    """

    positive: Tensor
    counted: Tensor
    classes: Tensor
    deltas: Tensor


def match_anchors(
    anchors: Tensor, boxes: Tensor, classes: Tensor, ignored: Tensor, *, positive_iou: float, negative_iou: float
) -> Match:
    """Anchors (A, 4) cx, cy, w, h against boxes (n, 4) and ignored boxes (m, 4), both x1, y1, x2, y2.

    An anchor belongs to the box that it overlaps most, if by `positive_iou`. Every box gets its best anchor, and others
    that are `CLOSE` and no other box's, up to `FORCED` in all. Background is what is neither near a box, by
    `negative_iou` or `CLOSE` to its best anchor, nor near or inside an ignored one.
    """
    areas = anchors[:, 2] * anchors[:, 3]
    corners = torch.cat([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], dim=1)
    positive = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    counted = torch.ones_like(positive)
    if len(ignored):
        inter = _intersections(corners, ignored)
        inside = inter / areas[:, None] >= IGNORED_SHARE
        counted = ~(inside | _near(_iou(inter, areas, ignored), negative_iou)).any(dim=1)
    if not len(boxes):
        return Match(positive, counted, classes[:0], anchors[:0])
    iou = _iou(_intersections(corners, boxes), areas, boxes)
    best, owner = iou.max(dim=1)
    positive = best >= positive_iou
    counted &= ~_near(iou, negative_iou).any(dim=1)
    forced, keep = _forced(anchors, boxes, iou, positive)
    for rank in reversed(range(len(forced))):  # where two boxes want one anchor, the better rank has it
        rows = forced[rank, keep[rank]]
        owner[rows] = torch.arange(len(boxes), device=boxes.device)[keep[rank]]
        positive[rows] = True
    mine, own = anchors[positive], boxes[owner[positive]]
    centres, sizes = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]).clamp_min(1e-3)
    deltas = torch.cat([(centres - mine[:, :2]) / mine[:, 2:], (sizes / mine[:, 2:]).log()], dim=1)
    return Match(positive, counted | positive, classes[owner[positive]], deltas)


def _near(iou: Tensor, negative_iou: float) -> Tensor:
    """Which of the IoUs (A, n) are too large for background: `negative_iou`, less for a box that no anchor fits."""
    return (iou > 0) & (iou >= (CLOSE * iou.amax(dim=0)).clamp_max(negative_iou))


def _forced(anchors: Tensor, boxes: Tensor, iou: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """The best anchors (FORCED, n) of each box, best first, and which of them it gets."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = ((anchors[:, None, :2] - centres) / anchors[:, None, 2:]).square().sum(dim=2)
    forced = (iou - CENTRE_WEIGHT * distance.clamp_max(1.0)).topk(min(FORCED, len(anchors)), dim=0).indices
    forced_iou = iou.gather(0, forced)
    keep = (forced_iou >= CLOSE * forced_iou.amax(dim=0)) & ~positive[forced]
    keep[0] = True
    return forced, keep & (forced_iou > 0)


def _iou(inter: Tensor, areas: Tensor, boxes: Tensor) -> Tensor:
    """Intersections (A, n) of anchors of the areas (A,) with boxes (n, 4) over their unions."""
    box_areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return inter / (areas[:, None] + box_areas - inter)


def _intersections(a: Tensor, b: Tensor) -> Tensor:
    """Areas (A, n) that boxes (A, 4) and (n, 4), x1, y1, x2, y2, have in common."""
    width = torch.minimum(a[:, None, 2], b[:, 2]).sub_(torch.maximum(a[:, None, 0], b[:, 0])).clamp_min_(0)
    height = torch.minimum(a[:, None, 3], b[:, 3]).sub_(torch.maximum(a[:, None, 1], b[:, 1])).clamp_min_(0)
    return width.mul_(height)


def _per_anchor(maps: Sequence[Tensor], fields: int) -> Tensor:
    """Maps (N, anchors · fields, h, w) to float32 (N, A, fields) in the anchors' order."""
    return torch.cat([entry.permute(0, 2, 3, 1).reshape(len(entry), -1, fields) for entry in maps], dim=1).float()
