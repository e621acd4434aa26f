"""Fake quantization in torch: float tensors that hold exactly the values of the integer network.

With batch norm absorbed, the values of every activation are q · 2^-shift with the very q that `quant.arith` computes: weights and
activations are rounded half to even onto their grids, the bias lies on the accumulator's, and the certificate's bound (the sum of all
absolute terms below 2^24 grid units) makes every float32 sum exact in any order. Gradients pass straight through the rounding.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.arith import ACCUMULATOR_LIMIT, INPUT_SHIFT, WEIGHT_MAX
from quant.certificate import CertificateError
from quant.fold import fold_batch_norm
from quant.observer import ErrorObserver, Observer, PeakObserver
from quant.params import choose_weight_shift

Mode = Literal["kFloatTraining", "kTrainingWithBN", "kTrainingWithoutBN", "kIntInference"]

SIGNED_MAX, RELU_MAX = 128, 127
FIRST_SHIFT = 4


@dataclass(frozen=True)
class QuantTensor:
    """An activation: `value` (N, C, H, W) float32 on the grid 2^-shift, |q| at most `maximum`. In float mode only `value` counts."""

    value: Tensor
    shift: int
    maximum: int


def use_exact_convolutions() -> None:
    """Turns off what computes a convolution other than by its sum: Winograd (NNPACK), TF32, reduced precision."""
    torch.backends.nnpack.set_flags(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


class Quantized(nn.Module):
    """Base of what can be in float or in fake-quantized mode, observing or frozen, and snapped for export.

    `snapped` says that weights and biases already lie on their grids: nothing is left to round but what an exported graph rounds.
    """

    frozen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.quantized = True
        self.snapped = False
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))


class ActivationQuantizer(Quantized):
    """Rounds an activation to int8 on the grid 2^-shift. Unless frozen, training moves the shift to what the observer finds best."""

    shift: Tensor

    def __init__(self, observer: type[Observer] = ErrorObserver) -> None:
        super().__init__()
        self.observer = observer()
        self.register_buffer("shift", torch.tensor(FIRST_SHIFT, dtype=torch.int64))

    def forward(self, value: Tensor, *, relu: bool = False) -> QuantTensor:
        """(N, C, H, W) float32, of any shift; with `relu`, negative values become 0 first."""
        maximum = RELU_MAX if relu else SIGNED_MAX
        if not self.quantized:
            return QuantTensor(value.relu() if relu else value, 0, maximum)
        if self.training and not self.frozen and self.observer.observe(value, relu=relu):
            self.shift.fill_(self.observer.shift())
        shift = int(self.shift)
        if self.snapped:  # the form that exports: Relu, then the full int8 range
            value = value.relu() if relu else value
            low = -128
        else:  # the same values with one pass less over memory: zero is the lower end of the range
            low = 0 if relu else -128
        return QuantTensor(torch.fake_quantize_per_tensor_affine(value, 2.0**-shift, 0, low, 127), shift, maximum)


class InputQuantizer(Quantized):
    """The image, (p - 128) / 128 of uint8 pixels p: exactly int8 on shift 7 already. In the export it is the first node."""

    def forward(self, image: Tensor) -> QuantTensor:
        """(N, 3, H, W) float32."""
        if self.quantized:
            image = torch.fake_quantize_per_tensor_affine(image, 2.0**-INPUT_SHIFT, 0, -128, 127)
        return QuantTensor(image, INPUT_SHIFT, SIGNED_MAX)


class QuantConv2d(Quantized):
    """Convolution, then batch norm (until it is absorbed), then residual, ReLU and output quantization, each where asked for.

    `weight_shift` (O,): one per output channel, the largest under the certificate; chosen anew in every forward pass until frozen.
    From then on weights saturate at ±127 and the bias at what the bound leaves for it.
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
        quantize_output: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=not batch_norm
        )
        self.bn: nn.BatchNorm2d | None = nn.BatchNorm2d(channels_out) if batch_norm else None
        self.relu = relu
        self.quantizer = ActivationQuantizer() if quantize_output else None
        self.register_buffer("weight_shift", torch.full((channels_out,), FIRST_SHIFT, dtype=torch.int64))
        self.name = ""

    def forward(self, x: QuantTensor, residual: QuantTensor | None = None) -> QuantTensor:
        """`residual` is added to the accumulator, before ReLU and rounding. Without output quantization the result is the accumulator,
        whose shifts differ per channel: `shift` and `maximum` of the result mean nothing then."""
        if self.quantized and not self.frozen:
            self._choose_shifts(x, residual)
        value = F.conv2d(
            x.value,
            self._weight(),
            self._bias(x, residual),
            self.conv.stride,
            self.conv.padding,
            groups=self.conv.groups,
        )
        if self.bn is not None:
            value = self.bn(value)
        if residual is not None:
            value = value + residual.value
        if self.quantizer is not None:
            return self.quantizer(value, relu=self.relu)
        return QuantTensor(value.relu() if self.relu else value, 0, 0)

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
        self.bn = None

    @torch.no_grad()
    def snap(self, x: QuantTensor, residual: QuantTensor | None) -> None:
        """Puts weights and bias onto their grids for the input `x`, and freezes. CertificateError if the bound cannot hold."""
        weight, bias = self._weight(), self._bias(x, residual)
        self.conv.weight.copy_(weight)
        if self.conv.bias is not None and bias is not None:
            if (self._room(x, residual) < 0).any():
                raise CertificateError(
                    f"{self.name}: the sum of absolute terms reaches 2^24, float32 sums would not be exact; "
                    "train on with a smaller learning rate or a larger weight decay"
                )
            self.conv.bias.copy_(bias)
        self.frozen.fill_(True)
        self.snapped = True

    @torch.no_grad()
    def _choose_shifts(self, x: QuantTensor, residual: QuantTensor | None) -> None:
        bias = self.conv.bias
        shifts = choose_weight_shift(
            _numpy(self.conv.weight),
            np.zeros(len(self.weight_shift), np.float32) if bias is None else _numpy(bias),
            input_shift=x.shift,
            input_max=x.maximum,
            residual_shift=None if residual is None or bias is None else residual.shift,
        )
        self.weight_shift.copy_(torch.from_numpy(shifts))

    def _weight(self) -> Tensor:
        if not self.quantized:
            return self.conv.weight
        low = -128 if self.snapped else -WEIGHT_MAX  # snapped weights keep to ±127; -128 is what ONNX has a type for
        scale = torch.exp2(-self.weight_shift.float())
        zero = torch.zeros_like(self.weight_shift, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(self.conv.weight, scale, zero, 0, low, WEIGHT_MAX)

    def _bias(self, x: QuantTensor, residual: QuantTensor | None) -> Tensor | None:
        bias = self.conv.bias
        if bias is None or not self.quantized or self.snapped:
            return bias
        scale = torch.exp2(self.weight_shift.float() + x.shift)
        on_grid = bias * scale
        on_grid = on_grid + (on_grid.round() - on_grid).detach()
        if self.frozen:  # until then the shifts were chosen for this very bias
            room = self._room(x, residual).clamp_min(0).to(bias)
            on_grid = on_grid.clamp(-room, room)
        return on_grid / scale

    @torch.no_grad()
    def _room(self, x: QuantTensor, residual: QuantTensor | None) -> Tensor:
        """What the bound leaves for the bias, per channel, in units of the accumulator's grid."""
        shift = self.weight_shift + x.shift
        terms = (self._weight().double().abs().sum(dim=(1, 2, 3)) * torch.exp2(self.weight_shift.double())) * x.maximum
        limit = torch.full_like(terms, ACCUMULATOR_LIMIT - 1)
        if residual is not None:
            finer = shift.clamp_min(residual.shift)
            limit -= residual.maximum * torch.exp2((finer - residual.shift).double())
            limit = (limit / torch.exp2((finer - shift).double())).floor()
        return limit - terms


class ElementwiseAdd(Quantized):
    """Sum of two quantized activations, both shifted to the finer grid, then ReLU if asked for, then quantization."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.quantizer = ActivationQuantizer()

    def forward(self, a: QuantTensor, b: QuantTensor) -> QuantTensor:
        """Two activations of the same size."""
        return self.quantizer(a.value + b.value, relu=self.relu)


def upsample2x(x: QuantTensor, height: int, width: int) -> QuantTensor:
    """Nearest neighbour, cropped to height x width: sizes need be no multiple of the stride."""
    value = F.interpolate(x.value, scale_factor=2.0, mode="nearest")
    if tuple(int(size) for size in value.shape[2:]) != (height, width):
        value = value[:, :, :height, :width]
    return QuantTensor(value, x.shift, x.maximum)


def _numpy(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().cpu().numpy()
