"""The neck: from the coarsest map down, each step adds what is coarser to what is finer."""

from collections.abc import Sequence

from torch import nn

from configs.schema import Neck
from quant.fake import ElementwiseAdd, QuantConv2d, QuantTensor, upsample2x
from train.models.blocks import NEARLY_LINEAR, SeparableGroupConv, VarGBlock, begin_nearly_linear


class TopDownNeck(nn.Module):
    """Step by step: separable group convolution, nearest x2 cropped to the finer map, plus the lateral, ReLU, block."""

    def __init__(self, config: Neck, channels_in: Sequence[int]) -> None:
        super().__init__()
        base = config.upscale_group_base
        channels = config.channels
        top = len(channels) - 1
        self.laterals = nn.ModuleList(
            QuantConv2d(source, target, relu=level == top)
            for level, (source, target) in enumerate(zip(channels_in, channels, strict=True))
        )
        pairs = list(zip(channels[1:], channels[:-1], strict=True))
        self.reductions = nn.ModuleList(
            SeparableGroupConv(coarse, fine, group_base=base, relu=False) for coarse, fine in pairs
        )
        begin_nearly_linear(*self.laterals, *(step.grouped for step in self.reductions))
        for step in self.reductions:
            # Not as far above 0 as the lateral that it is added to: both biases have the same gradient and would stay
            # the same, and an export keeps one of two tensors that are equal.
            step.pointwise.start_batch_norm(weight=NEARLY_LINEAR["weight"], bias=0.0)
        self.sums = nn.ModuleList(ElementwiseAdd(relu=True) for _ in pairs)
        self.blocks = nn.ModuleList(VarGBlock(fine, fine, group_base=base) for _, fine in pairs)

    def forward(self, maps: Sequence[QuantTensor]) -> list[QuantTensor]:
        """The backbone's maps, the finest first, to as many maps of the same sizes."""
        laterals = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        results = [laterals[-1]]
        for level in reversed(range(len(maps) - 1)):
            height, width = (int(size) for size in laterals[level].value.shape[2:])
            coarse = upsample2x(self.reductions[level](results[0]), height, width)
            results.insert(0, self.blocks[level](self.sums[level](coarse, laterals[level])))
        return results
