"""Fake quantization in torch: float tensors that hold exactly the values of the integer network.

With batch norm absorbed, every activation is q · 2^-shift with the very q that `quant.arith` computes: weights and
activations are rounded half to even onto their grids, the bias lies on the accumulator's, and the certificate's bound
(all absolute terms sum to less than 2^24 grid units) makes every float32 sum exact in any order. Gradients pass
straight through the rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from quant import processes
from quant.arith import ACCUMULATOR_LIMIT, INPUT_SHIFT, INT8_MAX, INT8_MIN, WEIGHT_MAX
from quant.batch_norm import WarmBatchNorm2d
from quant.certificate import CertificateError
from quant.fold import fold_batch_norm
from quant.observer import EAGER, ErrorObserver, Observer
from quant.params import ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN, choose_weight_shift

SIGNED_MAX, RELU_MAX = -INT8_MIN, INT8_MAX
Mode = Literal["kFloatTraining", "kTrainingWithBN", "kTrainingWithoutBN", "kIntInference"]
INT8_BITS = 7  # beside the sign
FIRST_SHIFT = 4  # of activations before the first observation


@dataclass(frozen=True)
class QuantTensor:
    """An activation: `value` (N, C, H, W) float32 on the grid 2^-shift, |q| at most `maximum`; `quantizer` rounded it.

    Where nothing is quantized, shift and maximum do not count.
    """

    value: Tensor
    shift: int
    maximum: int
    quantizer: "ActivationQuantizer | None" = None


def use_exact_convolutions() -> None:
    """Turns off what computes a convolution otherwise than by its sum: Winograd (NNPACK), TF32."""
    torch.backends.nnpack.set_flags(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


class Quantized(nn.Module):
    """Base of what is in float or in fake-quantized mode, observing (ranges, batch statistics) or frozen.

    `snapped`: weights and biases already lie on their grids, and the forward pass has the form that is exported.
    """

    frozen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.quantized = True
        self.snapped = False
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))


def round_to_grid(value: Tensor, shift: int, low: int, high: int) -> Tensor:
    """clamp(rint(x · 2^shift), low, high) · 2^-shift: torch's fake quantization at a third of its price.

    A ReLU is low = 0. The gradient passes where the value lies inside the range, rounded to an end of it or not: small
    activations would never grow otherwise. An intermediate result of training is overwritten in place.
    """
    step = 2.0**-shift
    clamped = functional.hardtanh(value, low * step, high * step, inplace=not value.is_leaf)
    rounded: Tensor = _Round.apply(clamped, step)
    return rounded


class _Round(torch.autograd.Function):
    """To multiples of `step`; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, step: float) -> Tensor:
        return _to_multiples(value, step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


class _RoundToLearnedGrid(torch.autograd.Function):
    """The same on the grid of shift = 7 - ceil(log2 of the threshold), with a gradient to that logarithm, which takes
    the ceiling and the rounding for the identity: ln 2 times (rounded - value) inside the range, rounded outside it
    (TQT, arXiv 1903.08066, equation 8). It is divided by the root of the number of values times 127, as LSQ does
    (arXiv 1902.08153, 2.2): clipping the norm of all gradients would else be about the thresholds.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, log2_threshold: Tensor, shift: int, low: int, high: int) -> Tensor:
        ctx.save_for_backward(value)
        ctx.grid = shift, low, high
        return _on_grid(value, shift, low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (value,) = ctx.saved_tensors
        shift, low, high = ctx.grid
        step = 2.0**-shift
        inside = (value > low * step) & (value < high * step)
        rounded = _on_grid(value, shift, low, high)
        count = processes.count() * value.numel()  # gradients are the means over processes
        slope = (gradients[0] * (rounded - value * inside)).sum() * (math.log(2) / math.sqrt(count * high))
        return gradients[0] * inside, slope, None, None, None


def _on_grid(value: Tensor, shift: int, low: int, high: int) -> Tensor:
    """clamp(rint(x · 2^shift), low, high) · 2^-shift, a new tensor."""
    step = 2.0**-shift
    return _to_multiples(value.clamp(low * step, high * step), step)


def _to_multiples(value: Tensor, step: float) -> Tensor:
    """rint(x / step) · step, a new tensor, for up to 2^22 steps: adding 1.5 · 2^23 of them and taking them off again
    rounds half to even, since that is what float32 addition does.
    """
    magic = 1.5 * 2**23 * step
    return (value + magic).sub_(magic)


class ActivationQuantizer(Quantized):
    """Rounds activations to int8 on the grid 2^-shift. Unless frozen, training moves the shift to what suits.

    What it is given is its to overwrite. `least_shift` bounds the shift from below: what lies beyond may saturate.
    """

    shift: Tensor

    def __init__(self, observer: type[Observer] = ErrorObserver, *, least_shift: int = ACTIVATION_SHIFT_MIN) -> None:
        super().__init__()
        self.observer = observer()
        self.least_shift = least_shift
        self.register_buffer("shift", torch.tensor(FIRST_SHIFT, dtype=torch.int64))
        self.log2_threshold: nn.Parameter | None = None

    def learn_threshold(self) -> None:
        """From now on the shift is 7 - ceil(log2 of a threshold), a parameter, once the observer has found its first
        value.
        """
        self.log2_threshold = nn.Parameter(torch.zeros(()))

    def forward(self, value: Tensor, *, relu: bool = False) -> QuantTensor:
        """(N, C, H, W) float32 of any grid; with `relu`, negative values become 0 first."""
        shift = self._current([value], relu=relu)
        return QuantTensor(self._round(value, shift, relu=relu), shift, RELU_MAX if relu else SIGNED_MAX, self)

    def together(self, values: Sequence[Tensor]) -> list[QuantTensor]:
        """Several tensors on one shift, chosen for all of them."""
        shift = self._current(values, relu=False)
        return [QuantTensor(self._round(value, shift, relu=False), shift, SIGNED_MAX, self) for value in values]

    def _current(self, values: Sequence[Tensor], *, relu: bool) -> int:
        if self.quantized and self.training and not self.frozen:
            if self.log2_threshold is not None and self.observer.count >= EAGER:
                self._move_to(min(INT8_BITS - math.ceil(float(self.log2_threshold.detach())), ACTIVATION_SHIFT_MAX))
            elif (best := self.observer.observe(values, relu=relu)) is not None:
                self._move_to(best)
                if self.log2_threshold is not None:  # to the middle of the shift's range
                    self.log2_threshold.data.fill_(INT8_BITS - int(self.shift) - 0.5)
        return int(self.shift)

    def _move_to(self, shift: int) -> None:
        self.shift.fill_(max(shift, self.least_shift))

    def _round(self, value: Tensor, shift: int, *, relu: bool) -> Tensor:
        low = 0 if relu else INT8_MIN
        if self.quantized and not self.snapped:
            if self.log2_threshold is not None:
                learned: Tensor = _RoundToLearnedGrid.apply(value, self.log2_threshold, shift, low, INT8_MAX)
                return learned
            return round_to_grid(value, shift, low, INT8_MAX)
        value = value.relu() if relu else value
        if not self.quantized:
            return value
        return torch.fake_quantize_per_tensor_affine(value, 2.0**-shift, 0, INT8_MIN, INT8_MAX)


class InputQuantizer(Quantized):
    """The image, (p - 128) / 128 of pixels p: exactly int8 on shift 7 already; in the export it is the first node."""

    def forward(self, image: Tensor) -> QuantTensor:
        """(N, 3, H, W) float32."""
        if self.quantized:
            image = torch.fake_quantize_per_tensor_affine(image, 2.0**-INPUT_SHIFT, 0, INT8_MIN, INT8_MAX)
        return QuantTensor(image, INPUT_SHIFT, SIGNED_MAX)


class QuantConv2d(Quantized):
    """Convolution, batch norm (until absorbed), residual, ReLU, output quantization: the latter three where asked for.

    `weight_shift` (O,), one per output channel, is the largest under the certificate, chosen anew in every forward pass
    until frozen. From then on weights saturate at ±127 and the bias at what the bound leaves for it. Without an
    `observer` the output is not quantized.
    """

    weight_shift: Tensor

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        batch_norm: bool = True,
        relu: bool = False,
        observer: type[Observer] | None = ErrorObserver,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=not batch_norm
        )
        self.bn: WarmBatchNorm2d | None = WarmBatchNorm2d(channels_out) if batch_norm else None
        self.absorbed = False  # whether there was a batch norm that is folded into the weights
        self.relu = relu
        self.quantizer = None if observer is None else ActivationQuantizer(observer)
        self.register_buffer("weight_shift", torch.full((channels_out,), FIRST_SHIFT, dtype=torch.int64))
        self.name = type(self).__name__  # the network gives the dotted name, for messages

    def forward(self, x: QuantTensor, residual: QuantTensor | None = None) -> QuantTensor:
        """`residual` is added to the accumulator, before ReLU and rounding.

        Without output quantization the result is the accumulator itself, whose channels have shifts of their own:
        `shift` and `maximum` of the result mean nothing then.
        """
        if self.quantized and not self.frozen:
            self._choose_shifts(x, residual)
        value = functional.conv2d(
            x.value,
            self._weight(),
            self._bias(x, residual),
            self.conv.stride,
            self.conv.padding,
            groups=self.conv.groups,
        )
        if self.bn is not None:
            value = self.bn(value, frozen=bool(self.frozen))
        if residual is not None:
            value = value + residual.value
        if self.quantizer is not None:
            return self.quantizer(value, relu=self.relu)
        return QuantTensor(value.relu() if self.relu else value, 0, 0)

    @torch.no_grad()
    def start_batch_norm(self, *, weight: float, bias: float) -> None:
        """What the batch norm's learned weight and bias begin with in every channel, in place of 1 and 0."""
        assert self.bn is not None
        self.bn.weight.fill_(weight)
        self.bn.bias.fill_(bias)

    @torch.no_grad()
    def absorb_batch_norm(self) -> None:
        """Folds the batch norm, with its statistics as they are, into weight and bias."""
        if self.bn is None:
            return
        weight, bias = fold_batch_norm(
            _numpy(self.conv.weight),
            None,
            _numpy(self.bn.weight),
            _numpy(self.bn.bias),
            _numpy(self.bn.running_mean),
            _numpy(self.bn.running_var),
            self.bn.eps,
        )
        self.conv.weight.copy_(torch.from_numpy(weight))
        self.conv.bias = nn.Parameter(torch.from_numpy(bias).to(self.conv.weight))
        self.bn, self.absorbed = None, True

    @torch.no_grad()
    def rescale(self, *, source: float = 1.0, output: float = 1.0) -> None:
        """Makes the output `output` times as large where the input is `source` times as large: in float, the same
        network in other units.
        """
        self.conv.weight /= source
        scaled = [self.conv.weight, self.conv.bias] if self.bn is None else [self.bn.weight, self.bn.bias]
        for parameter in scaled:
            if parameter is not None:
                parameter *= output

    @torch.no_grad()
    def snap(self, x: QuantTensor, residual: QuantTensor | None = None) -> None:
        """Puts weights and bias onto their grids for good, given the arguments of a forward pass.

        Raises CertificateError if the bound cannot be kept.
        """
        if not self.frozen:
            self._choose_shifts(x, residual)
            self.frozen.fill_(True)
        weight, bias = self._weight(), self._bias(x, residual)
        if bias is not None and (self._room(x, residual) < 0).any():
            raise CertificateError(
                f"{self.name}: sums reach 2^24 and float32 would not be exact; its input or residual is on too fine a "
                "grid for its weights: train on with a smaller learning rate or a larger weight decay"
            )
        self.conv.weight.copy_(weight)
        if self.conv.bias is not None and bias is not None:
            self.conv.bias.copy_(bias)
        self.snapped = True
        # plain attributes: a trace takes them in as constants
        self._scale = torch.exp2(-self.weight_shift.float())
        self._zero = torch.zeros_like(self.weight_shift, dtype=torch.int32)

    @torch.no_grad()
    def _choose_shifts(self, x: QuantTensor, residual: QuantTensor | None) -> None:
        bias = self.conv.bias
        absorbed = bias is not None  # with batch norm to come, neither bias nor residual meets the accumulator
        shifts = choose_weight_shift(
            _numpy(self.conv.weight),
            np.zeros(len(self.weight_shift), np.float32) if bias is None else _numpy(bias),
            input_shift=x.shift,
            input_max=x.maximum,
            residual_shift=residual.shift if residual is not None and absorbed else None,
        )
        self.weight_shift.copy_(torch.from_numpy(shifts))

    def _weight(self) -> Tensor:
        if not self.quantized:
            return self.conv.weight
        if self.snapped:  # within ±127 already; -128 is the range that ONNX has a type for
            return torch.fake_quantize_per_channel_affine(
                self.conv.weight, self._scale, self._zero, 0, INT8_MIN, INT8_MAX
            )
        scale = torch.exp2(-self.weight_shift.float())
        zero = torch.zeros_like(self.weight_shift, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(self.conv.weight, scale, zero, 0, -WEIGHT_MAX, WEIGHT_MAX)

    def _bias(self, x: QuantTensor, residual: QuantTensor | None) -> Tensor | None:
        bias = self.conv.bias
        if bias is None or not self.quantized or self.snapped:
            return bias
        scale = torch.exp2(self.weight_shift.float() + x.shift)
        on_grid = bias * scale
        on_grid = on_grid + (on_grid.round() - on_grid).detach()
        if self.frozen:  # until then the shifts are chosen for this very bias
            room = self._room(x, residual).clamp_min(0).to(bias)
            on_grid = on_grid.clamp(-room, room)
        return on_grid / scale

    @torch.no_grad()
    def _room(self, x: QuantTensor, residual: QuantTensor | None) -> Tensor:
        """What the bound leaves for the bias, (O,), in units of the accumulator's grid."""
        shift = self.weight_shift + x.shift
        largest = self._weight().double().abs().sum(dim=(1, 2, 3)) * torch.exp2(self.weight_shift.double()) * x.maximum
        limit = torch.full_like(largest, ACCUMULATOR_LIMIT - 1)
        if residual is not None:
            finest = shift.clamp_min(residual.shift)
            limit -= residual.maximum * torch.exp2((finest - residual.shift).double())
            limit = (limit / torch.exp2((finest - shift).double())).floor()
        return limit - largest


class ElementwiseAdd(Quantized):
    """Sum of two quantized activations, both on the finer of their grids, ReLU if asked for, quantization."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.quantizer = ActivationQuantizer()

    def forward(self, a: QuantTensor, b: QuantTensor) -> QuantTensor:
        """Two activations of the same size."""
        return self.quantizer(a.value + b.value, relu=self.relu)


def upsample2x(x: QuantTensor, height: int, width: int) -> QuantTensor:
    """Nearest neighbour, cropped to height x width: sizes need be no multiple of the stride."""
    value = functional.interpolate(x.value, scale_factor=2.0, mode="nearest")
    if tuple(int(size) for size in value.shape[2:]) != (height, width):
        value = value[:, :, :height, :width]
    return QuantTensor(value, x.shift, x.maximum, x.quantizer)


def _numpy(tensor: Tensor | None) -> NDArray[Any]:
    assert tensor is not None
    return tensor.detach().cpu().numpy()
