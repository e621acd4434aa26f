"""Learned thresholds: the same forward pass, the gradient of TQT, shifts that follow."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import quant.fake
from quant.fake import ActivationQuantizer
from quant.observer import EAGER
from train.checkpoint import load_checkpoint
from train.train import main


def quantizer(log2_threshold: float) -> ActivationQuantizer:
    result = ActivationQuantizer()
    result.learn_threshold()
    result.observer.count.fill_(EAGER)
    assert result.log2_threshold is not None
    result.log2_threshold.data.fill_(log2_threshold)
    return result.train()


def test_the_shift_is_that_of_the_threshold() -> None:
    value = torch.linspace(-3, 3, 64).reshape(1, 1, 8, 8)
    for log2_threshold, shift in ((0.0, 7), (0.01, 6), (-1.5, 8), (2.0, 5), (-30.0, 12)):
        found = quantizer(log2_threshold)(value.clone())
        assert found.shift == shift
        want = (value * 2.0**shift).round().clamp(-128, 127) * 2.0**-shift
        assert torch.equal(found.value, want)


def test_the_gradient_is_that_of_the_paper() -> None:
    """Inside the range (rounded - value), outside it the end of the range, times ln 2, summed over the output's."""
    value = torch.tensor([0.3, 0.31, 5.0, -7.0]).reshape(1, 1, 2, 2)
    unit = quantizer(0.0)
    step, upstream = 2.0**-7, torch.tensor([1.0, -2.0, 3.0, 4.0])
    (unit(value.clone()).value.reshape(-1) * upstream).sum().backward()
    ends = [round(0.3 / step) * step - 0.3, round(0.31 / step) * step - 0.31, 127 * step, -128 * step]
    want = math.log(2) * sum(u * end for u, end in zip(upstream.tolist(), ends, strict=True)) / math.sqrt(4 * 127)
    assert unit.log2_threshold is not None
    assert unit.log2_threshold.grad is not None
    assert float(unit.log2_threshold.grad) == pytest.approx(want, rel=1e-4)


def test_training_finds_the_range_of_its_values() -> None:
    """From a threshold much too large down to the shift of the least squared error."""
    torch.manual_seed(0)
    value = torch.randn(4, 8, 16, 16)
    unit = quantizer(3.5)
    optimizer = torch.optim.Adam(unit.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        (unit(value.clone()).value - value).square().sum().backward()
        optimizer.step()
    assert int(unit.shift) in (5, 6), "the optimum for a normal distribution, or beside it"


def test_steps_with_learned_shifts(
    tiny_config: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quant.fake, "EAGER", 2)  # then thresholds take over
    config = tiny_config(tmp_path)
    with config.open("a") as file:
        file.write('env = {**env, "shifts": "learned"}\n')
    for step in ("0", "1"):
        assert main(["--config", str(config), "--step", step, "--pipeline-test", "--out", str(tmp_path / "run")]) == 0
    last = load_checkpoint(tmp_path / "run/fusion-bn-c1-last-0000.params").model
    assert "backbone.stem.quantizer.log2_threshold" in last
    assert not any("score_quantizer.log2" in name for name in last), "heads keep their observers"
    learned = torch.stack([value for name, value in last.items() if name.endswith("log2_threshold")])
    assert learned.isfinite().all()
    assert ((learned - 0.5).frac().abs() > 1e-6).float().mean() > 0.5, "they are where observers put them"
