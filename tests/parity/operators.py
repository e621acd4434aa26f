"""Single operators behind convolutions that spread a picture over int8: every one with integers of its own choosing."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from quant.arith import INPUT_SHIFT
from quant.fake import ActivationQuantizer, ElementwiseAdd, QuantConv2d, QuantTensor, upsample2x
from tests.parity.numpy_interpreter import Array

LEAD_DISTANCE = 7  # three pixels times three weights, divided by 2^7: every int8, and both ends often
TRAILING_ZEROS = (0, 2, 4)  # of a channel's weights, in turn: sums that are multiples are ties more often


@torch.no_grad()
def with_integers(
    unit: QuantConv2d, weight: Array, bias: Array, *, in_shift: int, weight_shift: Array, out_shift: int
) -> QuantConv2d:
    """The convolution with these integers, frozen: weight OIHW, bias and weight_shift (O,)."""
    assert unit.conv.bias is not None
    assert unit.quantizer is not None
    per_channel = weight_shift[:, None, None, None]
    unit.conv.weight.copy_(torch.from_numpy(np.ldexp(weight.astype(np.float64), -per_channel)))
    unit.conv.bias.copy_(torch.from_numpy(np.ldexp(bias.astype(np.float64), -weight_shift - in_shift)))
    unit.weight_shift.copy_(torch.from_numpy(weight_shift))
    unit.frozen.fill_(True)
    freeze_at(unit.quantizer, out_shift)
    return unit


def freeze_at(quantizer: ActivationQuantizer, shift: int) -> None:
    quantizer.shift.fill_(shift)
    quantizer.frozen.fill_(True)


def lead(rng: np.random.Generator, channels: int, shift: int, *, stride: int = 1, relu: bool = False) -> QuantConv2d:
    """1x1 convolution of the picture to int8 on `shift`."""
    return with_integers(
        QuantConv2d(3, channels, stride=stride, relu=relu, batch_norm=False),
        rng.integers(-127, 128, (channels, 3, 1, 1)),
        rng.integers(-2000, 2000, channels),
        in_shift=INPUT_SHIFT,
        weight_shift=np.full(channels, shift + LEAD_DISTANCE - INPUT_SHIFT),
        out_shift=shift,
    )


@dataclass(frozen=True)
class Convolution:
    """`residual`: how much finer its grid is than that of the middle channel's accumulator; None without one.

    `out_shift`: by default the one that spreads the output over int8.
    """

    channels_in: int
    channels_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu: bool = False
    residual: int | None = None
    behind_relu: bool = False
    in_shift: int = 4
    weight_shift: int = 7  # of the middle channel
    out_shift: int | None = None


class ConvolutionCase(nn.Module):
    """A convolution whose channels have three different weight shifts."""

    def __init__(self, spec: Convolution, rng: np.random.Generator) -> None:
        super().__init__()
        group_in = spec.channels_in // spec.groups
        shape = (spec.channels_out, group_in, spec.kernel, spec.kernel)
        zeros = np.resize(TRAILING_ZEROS, spec.channels_out)[:, None, None, None]
        weight = rng.integers(-127 >> zeros, (127 >> zeros) + 1, shape) << zeros
        weight = np.clip(weight, -127, 127)
        size = 70 * 70 * np.sqrt(group_in * spec.kernel**2)  # of an accumulator
        grid = spec.in_shift + spec.weight_shift
        spreading = grid - round(np.log2(size / 80))
        self.lead = lead(rng, spec.channels_in, spec.in_shift, relu=spec.behind_relu)
        self.unit = with_integers(
            QuantConv2d(
                spec.channels_in,
                spec.channels_out,
                spec.kernel,
                stride=spec.stride,
                groups=spec.groups,
                relu=spec.relu,
                batch_norm=False,
            ),
            weight,
            rng.integers(-size // 4, size // 4, spec.channels_out) >> zeros.reshape(-1) << zeros.reshape(-1),
            in_shift=spec.in_shift,
            weight_shift=spec.weight_shift + rng.permutation(np.resize([-1, 0, 1], spec.channels_out)),
            out_shift=spreading if spec.out_shift is None else spec.out_shift,
        )
        self.shortcut = (
            None if spec.residual is None else lead(rng, spec.channels_out, grid + spec.residual, stride=spec.stride)
        )

    def forward(self, image: QuantTensor) -> Tensor:
        residual = None if self.shortcut is None else self.shortcut(image)
        output: QuantTensor = self.unit(self.lead(image), residual)
        return output.value


class AdditionCase(nn.Module):
    def __init__(self, rng: np.random.Generator, a: int, b: int, out: int, *, relu: bool = False) -> None:
        super().__init__()
        self.lead, self.other_lead = lead(rng, 5, a), lead(rng, 5, b)
        self.sum = ElementwiseAdd(relu=relu)
        freeze_at(self.sum.quantizer, out)

    def forward(self, image: QuantTensor) -> Tensor:
        output: QuantTensor = self.sum(self.lead(image), self.other_lead(image))
        return output.value


class UpsamplingCase(nn.Module):
    """Half the picture's size and back, cropped where that is odd, plus a map of full size, as in the neck."""

    def __init__(self, rng: np.random.Generator, shift: int, lateral: int, out: int) -> None:
        super().__init__()
        self.lead, self.lateral_lead = lead(rng, 7, shift, stride=2), lead(rng, 7, lateral)
        self.sum = ElementwiseAdd(relu=True)
        freeze_at(self.sum.quantizer, out)

    def forward(self, image: QuantTensor) -> Tensor:
        lateral = self.lateral_lead(image)
        height, width = (int(size) for size in lateral.value.shape[2:])
        output: QuantTensor = self.sum(upsample2x(self.lead(image), height, width), lateral)
        return output.value


class RequantizedUpsamplingCase(nn.Module):
    """An upsampling without a crop, then a change of shift."""

    def __init__(self, rng: np.random.Generator, shift: int, out: int) -> None:
        super().__init__()
        self.lead = lead(rng, 3, shift)
        self.quantizer = ActivationQuantizer()
        freeze_at(self.quantizer, out)

    def forward(self, image: QuantTensor) -> Tensor:
        x = self.lead(image)
        height, width = (2 * int(size) for size in x.value.shape[2:])
        output: QuantTensor = self.quantizer(upsample2x(x, height, width).value)
        return output.value


class ConcatenationCase(nn.Module):
    def __init__(self, rng: np.random.Generator, shifts: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.leads = nn.ModuleList(lead(rng, 3 + 2 * index, shift) for index, shift in enumerate(shifts))
        self.quantizer = ActivationQuantizer()
        freeze_at(self.quantizer, out)

    def forward(self, image: QuantTensor) -> Tensor:
        output: QuantTensor = self.quantizer(torch.cat([entry(image).value for entry in self.leads], dim=1))
        return output.value


class PoolCase(nn.Module):
    def __init__(self, rng: np.random.Generator, kernel: int, stride: int, shift: int, out: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.lead = lead(rng, 6, shift)
        self.quantizer = ActivationQuantizer()
        freeze_at(self.quantizer, out)

    def forward(self, image: QuantTensor) -> Tensor:
        output: QuantTensor = self.quantizer(functional.avg_pool2d(self.lead(image).value, self.kernel, self.stride))
        return output.value


CONVOLUTIONS = {
    "pointwise": Convolution(16, 32, relu=True),
    "pointwise_signed": Convolution(16, 24),
    "pointwise_behind_relu": Convolution(20, 18, behind_relu=True),
    "odd_channels": Convolution(5, 7, kernel=3),
    "one_channel": Convolution(3, 1, kernel=3, relu=True),
    "stride_2": Convolution(12, 17, kernel=3, stride=2, relu=True),
    "pointwise_stride_2": Convolution(6, 9, stride=2),
    "two_groups": Convolution(16, 32, kernel=3, groups=2, relu=True),
    "eight_groups": Convolution(64, 128, kernel=3, groups=8, behind_relu=True),
    "eight_groups_stride_2": Convolution(64, 64, kernel=3, stride=2, groups=8),
    "odd_groups": Convolution(15, 21, kernel=3, groups=3),
    "depthwise": Convolution(11, 11, kernel=3, groups=11, relu=True),
    "finer_residual": Convolution(8, 16, residual=2),
    "finer_residual_relu": Convolution(8, 16, residual=2, relu=True),
    "mixed_residual": Convolution(8, 16, residual=0),
    "coarser_residual": Convolution(16, 19, residual=-6, relu=True),
    "much_coarser_residual": Convolution(16, 19, residual=-9),
    "residual_stride_2": Convolution(16, 16, kernel=3, stride=2, groups=2, residual=-5),
    "negative_shift": Convolution(4, 6, kernel=3, in_shift=-4, residual=-3),
    "fine_shift": Convolution(4, 6, kernel=3, in_shift=9),
}
# As far as the ranges of the shifts allow: an int32 shifted left before it is clipped would overflow.
FARTHEST = {
    "far_left": Convolution(4, 6, in_shift=-4, weight_shift=-7, out_shift=12),
    "far_left_relu": Convolution(4, 6, kernel=3, relu=True, in_shift=-4, weight_shift=-7, out_shift=12),
    "far_right": Convolution(4, 6, kernel=3, in_shift=12, weight_shift=13, out_shift=-4),
}


def pointwise_cases(rng: np.random.Generator) -> dict[str, nn.Module]:
    """Every operator but the convolution."""
    return {
        "add": AdditionCase(rng, 4, 6, 5),
        "add_relu": AdditionCase(rng, 6, 3, 4, relu=True),
        "add_far_apart": AdditionCase(rng, 0, 6, 1),
        "add_equal": AdditionCase(rng, 3, 3, 2),
        "add_negative_shifts": AdditionCase(rng, -4, -2, -3),
        "add_to_finer": AdditionCase(rng, 3, 3, 5, relu=True),
        "upsampling": UpsamplingCase(rng, 4, 5, 4),
        "upsampling_other_way": UpsamplingCase(rng, 5, 3, 3),
        "requantized_down": RequantizedUpsamplingCase(rng, 6, 5),
        "requantized_up": RequantizedUpsamplingCase(rng, 5, 7),
        "concatenation": ConcatenationCase(rng, (4, 6, 3), 4),
        "concatenation_of_two": ConcatenationCase(rng, (-2, 3), -1),
        "pool": PoolCase(rng, 2, 2, 4, 5),
        "pool_overlapping": PoolCase(rng, 2, 1, 5, 6),
        "pool_4": PoolCase(rng, 4, 2, 3, 5),
    }
