"""The steps of AdamW: torch's own, but relative to a channel's size where a batch norm has been absorbed."""

import copy

import pytest
import torch
from torch import nn

from quant.fake import QuantConv2d
from train.optimizer import EPSILON, ChannelwiseAdamW, channel_scale, parameter_groups

RATE, DECAY = 1e-3, 1e-2


def unit(sizes: tuple[float, ...], *, absorbed: bool) -> QuantConv2d:
    """A convolution whose batch norm gives its channels these sizes."""
    torch.manual_seed(3)
    conv = QuantConv2d(4, len(sizes), 3)
    assert conv.bn is not None
    with torch.no_grad():
        conv.bn.weight.copy_(torch.tensor(sizes))
    if absorbed:
        conv.absorb_batch_norm()
    return conv


def steps(conv: QuantConv2d, optimizer: torch.optim.Optimizer, count: int = 5) -> None:
    torch.manual_seed(4)
    for group in optimizer.param_groups:
        group["lr"] = RATE
    for _ in range(count):
        optimizer.zero_grad()
        torch.nn.functional.conv2d(torch.randn(2, 4, 8, 8), conv.conv.weight, conv.conv.bias).square().sum().backward()
        optimizer.step()


def test_with_a_batch_norm_it_is_torchs_adamw() -> None:
    ours, theirs = unit((0.01, 1.0), absorbed=False), unit((0.01, 1.0), absorbed=False)
    steps(ours, ChannelwiseAdamW(ours, DECAY))
    groups = [{"params": [theirs.conv.weight], "weight_decay": DECAY}]
    steps(theirs, torch.optim.AdamW(groups, eps=EPSILON, fused=True))
    assert torch.equal(ours.conv.weight, theirs.conv.weight)


def test_an_absorbed_channel_moves_in_proportion_to_its_size() -> None:
    conv = unit((0.01, 1.0, 5.0), absorbed=True)
    before = conv.conv.weight.detach().clone()
    steps(conv, ChannelwiseAdamW(conv, 0.0), count=1)
    moved = (conv.conv.weight.detach() - before).square().mean(dim=(1, 2, 3)).sqrt()
    # a first step of Adam moves every weight by the rate
    expected = RATE * before.square().mean(dim=(1, 2, 3)).sqrt() * (4 * 9 / 2) ** 0.5
    assert moved.tolist() == pytest.approx(expected.tolist(), rel=0.02)


def test_sizes_are_those_of_hes_initialization() -> None:
    weight = nn.init.kaiming_normal_(torch.empty(64, 256, 3, 3))
    assert channel_scale(weight).flatten().tolist() == pytest.approx([1.0] * 64, rel=0.1)


def test_kinds_of_parameters() -> None:
    network = nn.ModuleList([unit((1.0,), absorbed=False), unit((1.0,), absorbed=True)])
    groups = parameter_groups(network, DECAY)
    found = [(group["relative"], group["weight_decay"], len(group["params"])) for group in groups]
    assert found == [(False, DECAY, 1), (True, DECAY, 1), (False, 0.0, 3)]


def test_it_goes_on_from_its_state() -> None:
    one = unit((0.1, 1.0), absorbed=True)
    optimizer = ChannelwiseAdamW(one, DECAY)
    steps(one, optimizer)
    two = copy.deepcopy(one)
    resumed = ChannelwiseAdamW(two, DECAY)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(one, optimizer)
    steps(two, resumed)
    assert torch.equal(one.conv.weight, two.conv.weight)
