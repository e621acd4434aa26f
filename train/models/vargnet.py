"""The backbone: VarGNetV2 with extended stages."""

from torch import nn

from configs.schema import Backbone
from quant.fake import QuantConv2d, QuantTensor
from train.models.blocks import VarGBlock


class VarGNetV2(nn.Module):
    """Maps at strides 4, 8, 16, 32 and those of the extended stages, from an image of any size."""

    def __init__(self, config: Backbone) -> None:
        super().__init__()
        stem, *stages = config.channels
        self.stem = QuantConv2d(3, stem, 3, stride=2)
        self.stages = nn.ModuleList()
        plan = [*zip(stages, config.blocks, strict=True), *config.extended]
        channels_in = stem
        for index, (channels, blocks) in enumerate(plan):
            self.stages.append(
                _stage(
                    channels_in,
                    channels,
                    blocks,
                    group_base=config.group_base,
                    expansion=config.stem_expansion if index == 0 else config.expansion,
                    merge=0 < index < len(stages),  # strides 8, 16, 32
                )
            )
            channels_in = channels
        self.channels = tuple(channels for channels, _ in plan)

    def forward(self, image: QuantTensor) -> list[QuantTensor]:
        """(N, 3, H, W) to one map per stride, the finest first."""
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _stage(
    channels_in: int, channels: int, blocks: int, *, group_base: int, expansion: int, merge: bool
) -> nn.Sequential:
    first = VarGBlock(channels_in, channels, group_base=group_base, expansion=expansion, stride=2, merge=merge)
    rest = [VarGBlock(channels, channels, group_base=group_base, expansion=expansion) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
