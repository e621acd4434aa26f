"""Observers: the shift suits what was seen, for a sample as for the whole."""

import numpy as np
import pytest
import torch

from quant import processes
from quant.observer import ErrorObserver, PeakObserver, sample_of


def brute_force(value: torch.Tensor) -> int:
    x = value.double().numpy().ravel()
    errors = {s: np.mean((np.clip(np.rint(x * 2.0**s), -128, 127) * 2.0**-s - x) ** 2) for s in range(12, -5, -1)}
    return min(errors, key=lambda s: errors[s])


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0, 7.0, 200.0])
def test_error_observer_finds_the_least_error(spread: float) -> None:
    torch.manual_seed(0)
    value = torch.randn(2, 8, 64, 96) * spread
    assert ErrorObserver().observe([value]) == brute_force(value)


def test_error_observer_lets_a_rare_extreme_saturate_and_peak_observer_does_not() -> None:
    torch.manual_seed(0)
    value = torch.rand(1, 4, 32, 32)
    value[0, 0, 0, 0] = 1.15
    assert ErrorObserver().observe([value]) == 7
    assert PeakObserver().observe([value]) == 6


@pytest.mark.parametrize("seed", range(5))
def test_error_observer_weighs_all_looks_alike(seed: int) -> None:
    """Of long tails a few values decide, wherever in training they came."""
    torch.manual_seed(seed)
    values = [torch.randn(1, 4, 32, 32).mul(2).exp() for _ in range(16)]
    observer = ErrorObserver()
    for value in values:
        found = observer.observe([value])
    assert found == brute_force(torch.cat(values))


@pytest.mark.parametrize("count", range(4))
def test_two_processes_look_at_what_one_with_all_pictures_does(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    value = torch.randn(4, 8, 120, 160)
    alone = sample_of(value, count)
    monkeypatch.setattr(processes, "count", lambda: 2)
    together = torch.cat([sample_of(half, count) for half in value.split(2)])
    assert torch.equal(alone, together)


def test_relu_is_taken_into_account() -> None:
    value = torch.cat([torch.full((1, 1, 8, 8), -100.0), torch.full((1, 1, 8, 8), 0.9)], dim=1)
    assert PeakObserver().observe([value], relu=True) == 7
    assert PeakObserver().observe([value]) == 0


def test_tensors_of_one_shift_are_seen_together() -> None:
    small, large = torch.full((1, 1, 4, 4), 0.1), torch.full((1, 1, 2, 2), 10.0)
    assert PeakObserver().observe([small, large]) == PeakObserver().observe([large, small]) == 3


def test_zeros_get_the_finest_shift() -> None:
    assert ErrorObserver().observe([torch.zeros(1, 4, 8, 8)]) == 12


def test_one_call_in_four_is_looked_at_after_the_first_sixteen() -> None:
    observer = PeakObserver()
    looked = [observer.observe([torch.ones(1, 1, 2, 2)]) is not None for _ in range(32)]
    assert looked == [True] * 16 + [True, False, False, False] * 4


def test_peak_rises_at_once_and_falls_slowly() -> None:
    observer = PeakObserver()
    for size in (1.0, 100.0):
        observer.observe([torch.full((1, 1, 2, 2), size)])
    assert float(observer.peak) > 50
    observer.observe([torch.ones(1, 1, 2, 2)])
    assert float(observer.peak) > 40


def test_state_continues_where_it_was() -> None:
    torch.manual_seed(0)
    values = [torch.randn(1, 2, 16, 16) * factor for factor in (1, 3, 9, 2, 5)]
    whole, first, second = ErrorObserver(), ErrorObserver(), ErrorObserver()
    expected = [whole.observe([value]) for value in values]
    for value in values[:3]:
        first.observe([value])
    second.load_state_dict(first.state_dict())
    assert [second.observe([value]) for value in values[3:]] == expected[3:]
