"""Batch norm whose statistics are exact to float32's last bits, and those of all processes that train together.

torch adds up a channel's values one after the other in float32. Where a channel hardly varies about a large mean, that
leaves errors which the network amplifies: gradients of two runs that differ in the order of additions only differed by
a third. Here a picture's values are added in float32 by pairs, and the pictures' sums in float64.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from quant import processes

ALONG = (2, 3)  # rows and columns


class WarmBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose running statistics are plain averages at first: they are true after one batch, not after fifty.

    A short run can be folded, too. Later they are averages over some thirty batches: of ten small ones, torch's
    default, they would be too much a matter of chance to be frozen. Frozen, it normalizes by its running statistics, in
    training as in what is folded and exported: normalized by their own batch, a few unusual pictures look tame in
    training and explode behind it.
    """

    LONG_RUN = 0.03

    def forward(self, value: Tensor, *, frozen: bool = False) -> Tensor:
        """(N, C, H, W)."""
        if frozen or not self.training:
            return functional.batch_norm(
                value, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        assert self.num_batches_tracked is not None
        self.momentum = max(self.LONG_RUN, 1.0 / (int(self.num_batches_tracked) + 1))
        if value.dtype == torch.bfloat16 and processes.count() == 1:
            return super().forward(value)  # rounded to three digits; exact statistics would cost a tenth of the step
        result, mean, variance = _Normalize.apply(value.float(), self.weight, self.bias, self.eps)
        count = processes.count() * value.numel() // value.shape[1]
        for running, found in ((self.running_mean, mean), (self.running_var, variance * (count / max(1, count - 1)))):
            running.lerp_(found, self.momentum)
        self.num_batches_tracked += 1
        return result


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(variance + epsilon) · weight + bias, with mean and biased variance (C,) of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        count = processes.count() * x.numel() // x.shape[1]
        mean = processes.total(per_channel(x)) / count
        centre = mean.float()
        squares = processes.total(per_channel((x - centre[:, None, None]).square_())) / count
        variance = (squares - (mean - centre).square()).clamp_min(0)
        result = functional.batch_norm(x, centre, variance.float(), weight, bias, training=False, eps=epsilon)
        ctx.save_for_backward(x, weight, centre, (variance + epsilon).rsqrt())
        ctx.epsilon, ctx.count = epsilon, count
        ctx.mark_non_differentiable(centre, found := variance.float())
        return result, centre, found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, factor = ctx.saved_tensors
        gradient = gradients[0]
        if processes.count() == 1:
            parts = torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, None, None, mean, factor.float(), True, ctx.epsilon, [True, True, True]
            )
            return (*parts, None)
        centred = x - mean[:, None, None]
        own = torch.stack([per_channel(gradient), per_channel(gradient * centred)])
        offset, slope = processes.total(own) / ctx.count
        inner = gradient - offset.float()[:, None, None] - centred * (slope * factor.square()).float()[:, None, None]
        return inner * (factor * weight).float()[:, None, None], (own[1] * factor).float(), own[0].float(), None


def per_channel(x: Tensor) -> Tensor:
    """Sums (C,) float64 over pictures, rows and columns of (N, C, H, W)."""
    return x.sum(ALONG).double().sum(0)
