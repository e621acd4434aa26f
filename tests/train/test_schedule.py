"""The order of pictures and the plan of a step are functions of seed and iteration alone."""

from pathlib import Path

import numpy as np
import pytest

from configs import load
from train.order import SampleOrder
from train.schedule import Plan, make_plan


def test_every_pass_shows_every_picture_once_in_a_new_order() -> None:
    order = SampleOrder(10, 4, seed=(1, 0), chunk=3)
    shown = [picture for batch in order.batches(0, 5) for picture, _ in batch]
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert shown[:10] != shown[10:]


def test_starting_later_gives_the_same_batches_and_augmentations() -> None:
    whole = list(SampleOrder(10, 4, seed=(1, 0), chunk=3).batches(0, 9))
    assert list(SampleOrder(10, 4, seed=(1, 0), chunk=3).batches(5, 9)) == whole[5:]
    assert list(SampleOrder(10, 4, seed=(2, 0), chunk=3).batches(0, 9)) != whole


def test_augmentation_differs_from_pass_to_pass() -> None:
    draws = [draw for batch in SampleOrder(2, 2, seed=(1, 0), chunk=8).batches(0, 5) for _, draw in batch]
    assert len(set(draws)) == len(draws)


def test_processes_share_the_pictures() -> None:
    shares = [SampleOrder(12, 2, seed=(1,), chunk=4, rank=rank, world=2).batches(0, 3) for rank in (0, 1)]
    shown = [picture for share in shares for batch in share for picture, _ in batch]
    assert sorted(shown) == list(range(12))


def test_plan_counts_freezes_and_anneals(repository: Path) -> None:
    config = load(repository / "configs/4pe_resize/multitask.py")
    plan = make_plan(config, 2, pipeline_test=False, iterations_per_epoch=lambda batch: 1200 // batch)
    assert plan.prefix == "fusion-bn-c2"
    assert plan.iterations == plan.epochs * 150
    assert plan.freeze_at == pytest.approx(plan.iterations * (1 - plan.settings.freeze_fraction), abs=1)
    rates = [plan.learning_rate(iteration) for iteration in range(plan.iterations)]
    assert max(rates) == pytest.approx(plan.settings.learning_rate, rel=0.05)
    assert rates[0] < rates[5]
    assert 0 < rates[-1] < 0.01 * max(rates)


def test_warm_up_takes_fifty_iterations_at_least(repository: Path) -> None:
    config = load(repository / "configs/4pe_resize/multitask.py")
    settings = config.solver[0].model_copy(update={"epochs": 1, "iterations_per_epoch": 200, "warmup_fraction": 0.01})
    config = config.model_copy(update={"solver": (settings, *config.solver[1:])})
    plan = make_plan(config, 0, pipeline_test=False, iterations_per_epoch=lambda batch: 200)
    rates = [plan.learning_rate(iteration) for iteration in range(plan.iterations)]
    assert np.argmax(rates) == 50
    assert rates[24] == pytest.approx(settings.learning_rate * 25 / 51)


def test_a_config_may_shorten_its_epochs(repository: Path) -> None:
    config = load(repository / "configs/4pe_resize/multitask.py")
    short = config.solver[2].model_copy(update={"epochs": 3, "iterations_per_epoch": 7})
    config = config.model_copy(update={"solver": (*config.solver[:2], short, config.solver[3])})
    plan = make_plan(config, 2, pipeline_test=False, iterations_per_epoch=lambda batch: 1200 // batch)
    assert (plan.iterations_per_epoch, plan.iterations) == (7, 21)
    tested = make_plan(config, 2, pipeline_test=True, iterations_per_epoch=lambda batch: 1200 // batch)
    assert tested.iterations == config.pipeline_test.epochs * config.pipeline_test.iterations_per_epoch


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_nothing_is_frozen_before_it_was_observed(repository: Path, fraction: float) -> None:
    settings = load(repository / "configs/4pe_resize/multitask.py").solver[0]
    assert Plan(0, settings.model_copy(update={"freeze_fraction": fraction}), 1, 1, 1).freeze_at == 1


def test_quantization_begins_after_its_delay_and_is_observed_before_shifts_are_frozen(repository: Path) -> None:
    settings = load(repository / "configs/4pe_resize/multitask.py").solver[0]
    delayed = settings.model_copy(update={"quant_delay": 0.8, "freeze_fraction": 0.1})
    plan = Plan(0, delayed, 5, 20, 1)
    assert (plan.quantize_at, plan.freeze_at) == (80, 90)
    short = Plan(0, delayed, 1, 4, 1)
    assert (short.quantize_at, short.freeze_at) == (3, 4)
    assert Plan(0, settings, 5, 20, 1).quantize_at == 0
    in_float = settings.model_copy(update={"mode": "kFloatTraining"})
    assert Plan(0, in_float, 5, 20, 1).quantize_at == 100


def test_pipeline_test_is_short(repository: Path) -> None:
    config = load(repository / "configs/4pe_resize/multitask.py")
    plan = make_plan(config, 0, pipeline_test=True, iterations_per_epoch=lambda batch: 60 // batch)
    assert plan.iterations == config.pipeline_test.epochs * config.pipeline_test.iterations_per_epoch
