"""The network's blocks, each behind convolutions that make its inputs from the picture."""

from torch import Tensor, nn

from configs.schema import Neck
from quant.fake import QuantConv2d, QuantTensor
from train.models.blocks import SeparableGroupConv, VarGBlock
from train.models.neck import TopDownNeck


class BlockCase(nn.Module):
    def __init__(self, channels: int, block: nn.Module) -> None:
        super().__init__()
        self.lead = QuantConv2d(3, channels, relu=True)
        self.block = block

    def forward(self, image: QuantTensor) -> Tensor:
        output: QuantTensor = self.block(self.lead(image))
        return output.value


class NeckCase(nn.Module):
    """The neck over a ladder of stride 2 convolutions; its finest map, into which all others go."""

    def __init__(self, neck: Neck, channels_in: tuple[int, ...]) -> None:
        super().__init__()
        steps = zip((3, *channels_in[:-1]), channels_in, strict=True)
        self.ladder = nn.ModuleList(QuantConv2d(before, after, 3, stride=2, relu=True) for before, after in steps)
        self.neck = TopDownNeck(neck, channels_in)

    def forward(self, image: QuantTensor) -> Tensor:
        maps = [image]
        for step in self.ladder:
            maps.append(step(maps[-1]))
        finest: QuantTensor = self.neck(maps[1:])[0]
        return finest.value


def block_cases() -> dict[str, nn.Module]:
    """By name: the cases of `Bench`."""
    neck = Neck(kind="top_down", channels=(8, 16, 16, 8), upscale_group_base=4)
    return {
        "separable": BlockCase(16, SeparableGroupConv(16, 24, group_base=8, relu=True)),
        "separable_stride_2": BlockCase(8, SeparableGroupConv(8, 20, group_base=4, expansion=1, stride=2, relu=False)),
        "block": BlockCase(16, VarGBlock(16, 16, group_base=8)),
        "block_stride_2": BlockCase(8, VarGBlock(8, 16, group_base=8, stride=2)),
        "block_more_channels": BlockCase(8, VarGBlock(8, 24, group_base=2)),
        "block_merge": BlockCase(16, VarGBlock(16, 32, group_base=8, stride=2, merge=True)),
        "neck": NeckCase(neck, (8, 12, 16, 8)),
    }
