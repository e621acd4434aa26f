"""AdamW, and how far it moves the parameters of each kind.

Under a batch norm the scale of a convolution's weights means nothing, and a step of one size suits all channels. An
absorbed batch norm has multiplied every channel by a factor of its own: from then on the same step would be a small
change of one channel and overturn another. So the steps of absorbed weights are taken relative to their channel's size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quant.fake import QuantConv2d

EPSILON = 1e-6  # a gradient that is rounding error alone must not move a weight as far as any other
THRESHOLD_RATE = 20.0  # of log2 thresholds: TQT trains them at 1e-2 (arXiv 1903.08066, 5.2), weights at less


class ChannelwiseAdamW(torch.optim.AdamW):
    """AdamW (fused). In groups with `relative` the step of each output channel, decay included, is multiplied by its
    weights' root mean square over that of He's initialization, sqrt(2 / fan-in), which is what weights under a batch
    norm have.
    """

    def __init__(self, module: nn.Module, weight_decay: float) -> None:
        super().__init__(parameter_groups(module, weight_decay), eps=EPSILON, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step."""
        relative = [entry for group in self.param_groups if group["relative"] for entry in group["params"]]
        before = [entry.clone() for entry in relative]
        loss: float | None = super().step(closure)
        for parameter, old in zip(relative, before, strict=True):
            parameter.copy_(torch.lerp(old, parameter, channel_scale(old)))
        return loss


def channel_scale(weight: Tensor) -> Tensor:
    """Of a weight (O, I, h, w): per output channel its root mean square over sqrt(2 / fan-in), (O, 1, 1, 1)."""
    fan_in = weight[0].numel()
    return (weight.square().mean(dim=(1, 2, 3), keepdim=True) * (fan_in / 2)).sqrt()


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of convolutions decay; biases and batch norms do not, nor do learned thresholds, which move faster.

    `rate_factor` multiplies the learning rate; `relative`: see `ChannelwiseAdamW`.
    """
    absorbed = {id(unit.conv.weight) for unit in module.modules() if isinstance(unit, QuantConv2d) and unit.absorbed}
    kinds: dict[str, list[Tensor]] = {"weights": [], "absorbed weights": [], "thresholds": [], "rest": []}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith("log2_threshold"):
            kinds["thresholds"].append(parameter)
        elif parameter.ndim == 1:
            kinds["rest"].append(parameter)
        else:
            kinds["absorbed weights" if id(parameter) in absorbed else "weights"].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if "weights" in kind else 0.0,
            "rate_factor": THRESHOLD_RATE if kind == "thresholds" else 1.0,
            "relative": kind == "absorbed weights",
        }
        for kind, parameters in kinds.items()
        if parameters
    ]
