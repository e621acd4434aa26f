"""The heads. Their last convolutions have no batch norm.

All score maps of a task share one shift, and so do its delta maps.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from configs.task import AnchorHead, PixelHead
from quant.fake import ActivationQuantizer, QuantConv2d, QuantTensor
from quant.observer import PeakObserver
from train.models.blocks import SeparableGroupConv, begin_nearly_linear

BOX_SIZE = 4
PRIOR = 0.01
SCORE_SHIFT = 4  # at least: logits beyond ±8 are as good as certain, finer steps rank the boxes better
DELTA_SHIFT = 6  # at least: ±2 reaches boxes of seven times an anchor; only anchors that have no box say more


class _AnchorBranch(nn.Module):
    def __init__(self, channels_in: int, channels: int, scores: int, deltas: int, group_base: int) -> None:
        super().__init__()
        # what is rare and large in here becomes the scores, and must not saturate any more than they
        self.features = SeparableGroupConv(
            channels_in, channels, group_base=group_base, relu=True, observer=PeakObserver
        )
        begin_nearly_linear(self.features.grouped, self.features.pointwise)
        self.score = _last(channels, scores, bias=-math.log((1 - PRIOR) / PRIOR))
        self.delta = _last(channels, deltas, bias=0.0)


class AnchorDetectionHead(nn.Module):
    """Scores and deltas at every stride.

    Score channel a · classes + c, delta channel a · 4 + (dx, dy, dw, dh) for anchor a of a cell.
    """

    def __init__(self, config: AnchorHead, classes: int, channels_in: Mapping[int, int], group_base: int) -> None:
        super().__init__()
        anchors = config.anchors_per_cell
        self.strides = config.strides
        self.branches = nn.ModuleDict(
            {
                f"s{stride}": _AnchorBranch(
                    channels_in[stride], config.channels, anchors * classes, anchors * BOX_SIZE, group_base
                )
                for stride in config.strides
            }
        )
        self.score_quantizer = ActivationQuantizer(PeakObserver, least_shift=SCORE_SHIFT)
        self.delta_quantizer = ActivationQuantizer(PeakObserver, least_shift=DELTA_SHIFT)

    def output_quantizers(self) -> list[tuple[str, ActivationQuantizer]]:
        """(prefix of the outputs' names, their quantizer)."""
        return [("score", self.score_quantizer), ("delta", self.delta_quantizer)]

    def forward(self, maps: Mapping[int, QuantTensor]) -> dict[str, Tensor]:
        """The neck's maps by stride to `score_s8`, `delta_s8`, `score_s16`, …: (N, C, ⌈H / stride⌉, ⌈W / stride⌉)."""
        scores, deltas = [], []
        for stride in self.strides:
            branch = self.branches[f"s{stride}"]
            features = branch.features(maps[stride])
            scores.append(branch.score(features).value)
            deltas.append(branch.delta(features).value)
        outputs = {}
        pairs = zip(self.score_quantizer.together(scores), self.delta_quantizer.together(deltas), strict=True)
        for stride, (score, delta) in zip(self.strides, pairs, strict=True):
            outputs[f"score_s{stride}"], outputs[f"delta_s{stride}"] = score.value, delta.value
        return outputs


class PixelClassHead(nn.Module):
    """Class scores per cell of the map at one stride."""

    def __init__(self, config: PixelHead, classes: int, channels_in: Mapping[int, int], group_base: int) -> None:
        super().__init__()
        self.stride = config.stride
        # no ReLU: where one leaves all features of a rare class at 0, nothing pulls them back, and it is never learnt
        self.features = SeparableGroupConv(
            channels_in[config.stride], config.channels, group_base=group_base, relu=False
        )
        begin_nearly_linear(self.features.grouped)
        self.logits = _last(config.channels, classes, bias=0.0)
        self.quantizer = ActivationQuantizer()

    def output_quantizers(self) -> list[tuple[str, ActivationQuantizer]]:
        """(prefix of the outputs' names, their quantizer)."""
        return [("logits", self.quantizer)]

    def forward(self, maps: Mapping[int, QuantTensor]) -> dict[str, Tensor]:
        """The neck's maps by stride to `logits` (N, classes, ⌈H / stride⌉, ⌈W / stride⌉)."""
        return {"logits": self.quantizer(self.logits(self.features(maps[self.stride])).value).value}


def _last(channels: int, outputs: int, *, bias: float) -> QuantConv2d:
    unit = QuantConv2d(channels, outputs, batch_norm=False, observer=None)
    nn.init.normal_(unit.conv.weight, std=0.3 / math.sqrt(channels))
    assert unit.conv.bias is not None
    with torch.no_grad():
        unit.conv.bias.fill_(bias)
    return unit
