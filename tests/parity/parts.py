"""What parity tests put together: cases side by side, pictures, and networks with random weights, frozen for export."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from quant.fake import ActivationQuantizer, InputQuantizer, QuantConv2d, WarmBatchNorm2d
from quant.params import ACTIVATION_SHIFT_MAX
from tests.parity.numpy_interpreter import Array
from train.export import network_image
from train.steps import batch_norms, snap

DEAD_WEIGHT, DEAD_BIAS = 1e-4, 1.0  # what folding makes of a channel whose batch norm has learnt to be constant


class Bench(nn.Module):
    """Cases side by side, each from the quantized picture to one tensor: image (1, 3, H, W) to the tuple of these."""

    def __init__(self, cases: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.image = InputQuantizer()
        self.cases = tuple(cases)
        for name, case in cases.items():
            self.add_module(name, case)
        for name, module in self.named_modules():
            if isinstance(module, QuantConv2d):
                module.name = name

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.image(image)
        return tuple(getattr(self, name)(x) for name in self.cases)


def pictures(hw: tuple[int, int], count: int = 2, seed: int = 0) -> list[Array]:
    """Random network inputs, uint8 (1, H, W, 3); every second one holds the two extremes only."""
    rng = np.random.default_rng(seed)
    shape = (1, *hw, 3)
    drawn = [rng.integers(0, 2, shape) * 255 if index % 2 else rng.integers(0, 256, shape) for index in range(count)]
    return [picture.astype(np.uint8) for picture in drawn]


@torch.no_grad()
def randomize(network: nn.Module, rng: np.random.Generator, sample: Array, *, tail: float) -> None:
    """Weights from Student's distribution with `tail` degrees of freedom (heavy for 2), every batch norm random.

    The statistics are those of `sample`, a network input, a little off: the signal neither dies nor explodes.
    """
    for unit in network.modules():
        if isinstance(unit, QuantConv2d):
            weight = unit.conv.weight
            spread = 1 / np.sqrt(weight[0].numel())
            weight.copy_(torch.from_numpy(np.clip(rng.standard_t(tail, weight.shape), -20, 20) * spread))
            if unit.conv.bias is not None:
                unit.conv.bias.copy_(torch.from_numpy(rng.normal(0, 1, len(weight))))
    batch_norms = [module for module in network.modules() if isinstance(module, WarmBatchNorm2d)]
    for module in batch_norms:
        size = module.num_features
        module.weight.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, size) * rng.choice([-1, 1], size)))
        module.bias.copy_(torch.from_numpy(rng.normal(0, 0.5, size)))
    network.train()
    network(torch.from_numpy(network_image(sample)))
    for module in batch_norms:
        assert module.running_mean is not None
        assert module.running_var is not None
        deviation = module.running_var.sqrt()
        module.running_mean.add_(torch.from_numpy(rng.normal(0, 0.1, module.num_features)) * deviation)
        module.running_var.mul_(torch.from_numpy(rng.uniform(0.7, 1.4, module.num_features)))


@torch.no_grad()
def fold(network: nn.Module) -> None:
    """Absorbs every batch norm."""
    for unit in batch_norms(network).values():
        unit.absorb_batch_norm()


@torch.no_grad()
def kill_channels(network: nn.Module, rng: np.random.Generator, share: float) -> None:
    """Of a folded network's output channels makes a share nearly dead, and as many wholly zero."""
    for unit in network.modules():
        if isinstance(unit, QuantConv2d):
            assert unit.conv.bias is not None
            fate = rng.random(len(unit.conv.bias))
            dead, zero = torch.from_numpy(fate < share), torch.from_numpy(fate > 1 - share)
            unit.conv.weight[dead] = DEAD_WEIGHT * torch.sign(unit.conv.weight[dead])
            unit.conv.bias[dead] = DEAD_BIAS
            unit.conv.weight[zero] = 0


@torch.no_grad()
def freeze(network: nn.Module, rng: np.random.Generator, sample: Array, *, too_fine: float) -> None:
    """Observes a folded network on `sample`, makes a share of its activation shifts 1 to 3 too fine, so that values
    saturate, and puts everything on its grid. CertificateError where no weight shift keeps the bound.
    """
    image = torch.from_numpy(network_image(sample))
    quantizers = [module for module in network.modules() if isinstance(module, ActivationQuantizer)]
    network.train()
    with ExitStack() as stack:
        for quantizer in quantizers:
            quantizer.observer.count.zero_()
            finer = int(rng.integers(1, 4)) if rng.random() < too_fine else 0
            observe = partial(_observe, quantizer.observer.observe, finer)
            stack.enter_context(mock.patch.object(quantizer.observer, "observe", observe))
        network(image)  # each one sees what those before it have let through
    for quantizer in quantizers:
        quantizer.frozen.fill_(True)
    network.eval()
    trained = network(image)  # the weights' shifts follow
    snap(network)
    assert _equal(trained, network(image)), "training does not end on the graph that is exported"


def _equal(ours: Any, theirs: Any) -> bool:
    """Outputs of a network: a tuple, or a dict by name."""
    pairs = zip(*(entry.values() if isinstance(entry, dict) else entry for entry in (ours, theirs)), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def _observe(real: Callable[..., int | None], finer: int, values: Sequence[Tensor], *, relu: bool = False) -> int:
    best = real(values, relu=relu)
    assert best is not None
    return min(best + finer, ACTIVATION_SHIFT_MAX)
