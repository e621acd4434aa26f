"""Running statistics of batch norms: what a single batch has to say in them, early and late."""

import pytest
import torch

from quant.batch_norm import WarmBatchNorm2d


def batch(value: float) -> torch.Tensor:
    """(2, 1, 2, 2) with mean `value` and unbiased variance 8 / 7."""
    return value + torch.tensor([-1.0, 1.0]).repeat(4).reshape(2, 1, 2, 2)


def test_they_are_true_after_one_batch() -> None:
    unit = WarmBatchNorm2d(1)
    unit(batch(5.0))
    assert unit.running_mean == 5.0
    assert unit.running_var == pytest.approx(8 / 7)


def test_at_first_they_are_plain_averages() -> None:
    unit = WarmBatchNorm2d(1)
    for value in range(30):
        unit(batch(float(value)))
    assert float(unit.running_mean) == pytest.approx(14.5, rel=1e-5)


def test_later_a_batch_has_a_thirtieth_of_them() -> None:
    unit = WarmBatchNorm2d(1)
    for _ in range(100):
        unit(batch(0.0))
    unit(batch(1.0))
    assert float(unit.running_mean) == pytest.approx(0.03)


def test_frozen_they_stay() -> None:
    unit = WarmBatchNorm2d(1)
    unit(batch(5.0))
    result = unit(batch(7.0), frozen=True)
    assert unit.running_mean == 5.0
    assert float(result.detach().mean()) == pytest.approx(2 / (8 / 7) ** 0.5, rel=1e-4)
