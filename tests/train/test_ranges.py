"""Ranges are fitted: the network computes what it did, and powers of two suit its activations better."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs import load
from quant.fake import ActivationQuantizer, QuantConv2d, QuantTensor
from train.models.multitask import MultiTaskNetwork
from train.ranges import fit_ranges
from train.steps import quantized


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Before a network draws its weights: how much there is to gain depends on them."""
    torch.manual_seed(1)


def pictures(count: int, dtype: torch.dtype = torch.float64) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        noise = torch.randn(2, 3, 16, 16, generator=generator)
        yield torch.nn.functional.interpolate(noise, scale_factor=8.0).to(dtype)


def randomized(network: nn.Module) -> nn.Module:
    """In float64, with batch norms as training might leave them."""
    torch.manual_seed(1)
    for module in quantized(network):
        module.quantized = False
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    network.train()
    with torch.no_grad():
        for image in pictures(8, torch.float32):
            network(image)  # statistics that suit the weights
    return network.double().eval()


def noise(network: nn.Module) -> dict[str, float]:
    """By tensor the squared error of int8 on its best power of two, relative to the tensor's square."""
    found: dict[str, float] = {}
    names = {module: name for name, module in network.named_modules()}

    def measure(unit: nn.Module, inputs: tuple[Tensor], output: QuantTensor) -> None:
        value = output.value.double()
        grids = [((value * 2.0**s).round().clamp(-128, 127) / 2.0**s - value).square().mean() for s in range(-4, 13)]
        found[names[unit]] = found.get(names[unit], 0.0) + float(min(grids) / value.square().mean())

    hooks = [unit.register_forward_hook(measure) for unit in names if isinstance(unit, ActivationQuantizer)]
    with torch.no_grad():
        for image in pictures(3):
            network(image)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("variant", ["4pe_resize", "4pe_crop"])
def test_the_network_stays_the_same_and_its_tensors_suit_powers_of_two_better(repository: Path, variant: str) -> None:
    network = randomized(MultiTaskNetwork(load(repository / "configs" / variant / "multitask.py")))
    image = next(pictures(1))
    with torch.no_grad():
        before, noise_before = network(image), noise(network)
    line = fit_ranges(network, network, pictures(3))
    assert line.startswith("ranges fitted")
    with torch.no_grad():
        after, noise_after = network(image), noise(network)
    for name, output in before.items():
        assert torch.allclose(after[name], output, rtol=0, atol=1e-9 * float(output.abs().max())), name
    assert sum(noise_after.values()) < 0.85 * sum(noise_before.values())
    alone = [noise_after[name] / noise_before[name] for name in noise_before if "grouped" in name]  # of no sum
    assert len(alone) > 50
    assert sum(alone) / len(alone) < 0.9
    assert max(alone) < 1.5, "it looks at a sample"


def test_the_same_holds_where_batch_norms_are_absorbed(repository: Path) -> None:
    network = randomized(MultiTaskNetwork(load(repository / "configs/4pe_resize/multitask.py")))
    for module in network.modules():
        if isinstance(module, QuantConv2d):
            module.absorb_batch_norm()
    image = next(pictures(1))
    with torch.no_grad():
        before = network(image)
        assert fit_ranges(network, network, pictures(2)).startswith("ranges fitted")
        after = network(image)
    for name, output in before.items():
        assert torch.allclose(after[name], output, rtol=0, atol=1e-9 * float(output.abs().max())), name


class Squaring(nn.Module):
    """Two convolutions with something between them that is not proportional to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = QuantConv2d(3, 8, 3, relu=True), QuantConv2d(8, 4, batch_norm=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        between = self.first(QuantTensor(image, 7, 128))
        squared = QuantTensor(between.value.square(), between.shift, between.maximum, between.quantizer)
        return {"head": self.second(squared).value}


def test_what_would_change_is_left_as_it_is() -> None:
    network = randomized(Squaring())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        network.first.bn.weight.mul_(1.3)  # type: ignore[union-attr, operator]
        before["first.bn.weight"] = network.first.bn.weight.clone()  # type: ignore[union-attr, operator]
    assert "left as they are" in fit_ranges(network, network, pictures(2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
