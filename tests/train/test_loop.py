"""The loop, on a network of two parameters: plan, checkpoints, continuation bit by bit, Ctrl-C, results.csv."""

import csv
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import train.loop
from tests.train.conftest import assert_equal_state
from train.checkpoint import load_checkpoint
from train.errors import TrainError
from train.loop import Interrupted, StepTrainer
from train.progress import Reporter
from train.run import Run
from train.schedule import Plan

IDENTITY = {"config": "c", "pipeline_test": False, "seed": 1}
EPOCHS, PER_EPOCH = 3, 4


class Toy(nn.Module):
    """Two tasks on one weight; draws random numbers, and has a buffer that moves, as a real network's observers do."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3))
        self.register_buffer("seen", torch.zeros(()))
        self.events: list[str] = []
        self.quantized = False

    def forward(self, batches: Tensor) -> dict[str, Tensor]:
        self.seen += batches.mean()
        noise = torch.rand(2)
        outputs = self.weight @ batches + self.seen
        return {"a": (outputs[0] - noise[0]) ** 2, "b": (outputs[1] - noise[1]).abs()}

    def freeze(self) -> None:
        self.events.append("freeze")

    def fit_ranges(self, batches: Iterator[Tensor]) -> str:
        self.events.append(f"fit ranges to {len(list(batches))}")
        return "fitted"

    def quantize(self) -> None:
        self.events.append("quantize")
        self.quantized = True


def plan(settings: Any, mode: str = "kTrainingWithoutBN", **changes: float) -> Plan:
    changed = settings.model_copy(update={"freeze_fraction": 0.5, "mode": mode, **changes})
    return Plan(2, changed, EPOCHS, PER_EPOCH, 1)


@pytest.fixture
def settings(repository: Path) -> Any:
    from configs import load

    return load(repository / "configs/4pe_resize/multitask.py").solver[2]


def feed(hook: Callable[[int], None] = lambda iteration: None) -> Callable[[int, int], Iterator[Tensor]]:
    def batches(start: int, stop: int) -> Iterator[Tensor]:
        for iteration in range(start, stop):
            hook(iteration)
            yield torch.rand(3, generator=torch.Generator().manual_seed(iteration))

    return batches


def trainer(folder: Path, plan: Plan, batches: Any, start: int = 0) -> StepTrainer:
    reporter = Reporter(plan, start, log_every=1, later=(), folder=folder, quiet=True)
    facts = {"identity": IDENTITY, "step": plan.step}
    return StepTrainer(Fabric(accelerator="cpu", devices=1), Toy(), batches, plan, Run(folder), facts, reporter)


def run(folder: Path, plan: Plan, hook: Callable[[int], None] = lambda iteration: None) -> StepTrainer:
    torch.manual_seed(0)
    result = trainer(folder, plan, feed(hook))
    result.train(None)
    return result


def continued(folder: Path, plan: Plan) -> StepTrainer:
    torch.manual_seed(99)
    start = Run(folder).newest(plan.step)
    assert start is not None
    result = trainer(folder, plan, feed(), int(start.progress["iteration"]))
    result.train(start)
    return result


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        timed = ("seconds", "waiting_percent")
        return [{key: value for key, value in row.items() if key not in timed} for row in csv.DictReader(file)]


def test_a_step_leaves_its_checkpoints_and_results(tmp_path: Path, settings: Any) -> None:
    finished = run(tmp_path, plan(settings))
    names = sorted(path.name for path in tmp_path.glob("*.params"))
    assert names == [f"fusion-bn-c2-{part}.params" for part in ("0001", "0002", "0003", "init", "last-0000")]
    assert [row["epoch"] for row in rows(tmp_path)] == ["1", "2", "3"]
    assert {"a", "b", "loss", "learning_rate"} <= rows(tmp_path)[0].keys()
    assert finished.module.events == ["quantize", "freeze"]


def test_a_float_step_ends_with_fitted_ranges(tmp_path: Path, settings: Any) -> None:
    assert run(tmp_path, plan(settings, "kFloatTraining")).module.events == ["freeze", "fit ranges to 12"]


def test_quantization_begins_after_its_delay(tmp_path: Path, settings: Any) -> None:
    begun = run(tmp_path, plan(settings, "kTrainingWithBN", quant_delay=0.4, freeze_fraction=0.25))
    assert begun.module.events == ["fit ranges to 4", "quantize", "freeze"]
    before = load_checkpoint(tmp_path / "fusion-bn-c2-float.params").progress
    assert (before["iteration"], before["quantized"]) == (4, False)
    assert load_checkpoint(tmp_path / "fusion-bn-c2-0002.params").progress["quantized"]


def test_a_delay_of_less_than_an_iteration_is_none(tmp_path: Path, settings: Any) -> None:
    begun = run(tmp_path, plan(settings, "kTrainingWithBN", quant_delay=0.05))
    assert begun.module.events == ["quantize", "freeze"]
    assert not Run(tmp_path).floating(2).exists()


@pytest.mark.parametrize("delay", [0.0, 0.4])
@pytest.mark.parametrize("killed_at", [1, 4, 6, 9, 11])
def test_after_a_kill_the_run_ends_on_the_same_bits(
    tmp_path: Path, settings: Any, killed_at: int, delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"quant_delay": delay})
    monkeypatch.setattr(train.loop, "SAVE_SECONDS", 0.0)  # a checkpoint after every iteration
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, plan(settings))

    def kill(iteration: int) -> None:
        if iteration == killed_at:
            raise MemoryError  # ends the process without any of the loop's own care

    with pytest.raises(MemoryError):
        run(broken, plan(settings), kill)
    continued(broken, plan(settings))
    for name in ("fusion-bn-c2-last-0000.params", "fusion-bn-c2-0003.params"):
        expected, found = load_checkpoint(whole / name), load_checkpoint(broken / name)
        assert all(torch.equal(tensor, found.model[key]) for key, tensor in expected.model.items())
        assert_equal_state(expected.training, found.training)
    assert rows(whole) == rows(broken)


def test_without_a_checkpoint_in_between_it_continues_from_the_epoch(tmp_path: Path, settings: Any) -> None:
    def kill(iteration: int) -> None:
        if iteration == 6:
            raise MemoryError

    with pytest.raises(MemoryError):
        run(tmp_path, plan(settings), kill)
    start = Run(tmp_path).newest(2)
    assert start is not None
    assert start.progress["iteration"] == PER_EPOCH


def test_ctrl_c_saves_between_two_iterations(tmp_path: Path, settings: Any) -> None:
    def press(iteration: int) -> None:
        if iteration == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"fusion-bn-c2-resume\.params"):
        run(tmp_path, plan(settings), press)
    start = Run(tmp_path).newest(2)
    assert start is not None
    assert start.progress["iteration"] == 6
    continued(tmp_path, plan(settings))
    assert not Run(tmp_path).resume(2).exists(), "what a finished step needs no more is removed"


def test_what_a_user_sees_of_a_step(tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Losses per task, an estimate of the time of this step and of those after it, and TensorBoard's file."""
    long = Plan(2, settings, 2, 20, 1)
    reporter = Reporter(long, 0, log_every=10, later=[Plan(2, settings, 500_000, 20, 1)], folder=tmp_path, quiet=False)
    for done in range(1, long.iterations + 1):
        time.sleep(0.002)
        reporter.iteration(done, {"a": 1.0 / done, "loss": 2.0 / done}, 0.1)
    reporter.close()
    shown = capsys.readouterr().out
    assert re.search(r"epoch 1/2 iteration 10/40 left .* a 0\.100  loss 0\.200", shown)
    assert re.search(r"s per iteration: about \d+ s for the rest of this step, about \d+ h \d\d min with the", shown)
    curves = EventAccumulator(str(tmp_path / "tensorboard" / "fusion-bn-c2"))
    curves.Reload()
    assert {"loss/a", "loss/loss", "learning_rate"} <= set(curves.Tags()["scalars"])
    assert [point.step for point in curves.Scalars("loss/a")] == list(range(1, 41))


def test_a_slow_beginning_is_not_taken_for_the_pace(
    tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first iteration waits for the loader, and for ranges to be fitted where training goes on quantized."""
    now = 100.0
    monkeypatch.setattr("train.progress.time.monotonic", lambda: now)
    reporter = Reporter(Plan(2, settings, 2, 20, 1), 0, log_every=10, later=(), folder=tmp_path, quiet=False)
    for done in range(1, 11):
        now += 60.0 if done == 1 else 2.0
        reporter.iteration(done, {"loss": 1.0}, 0.1)
    reporter.close()
    shown = capsys.readouterr().out
    assert "iteration 1/40 left ?" in shown
    assert "iteration 10/40 left 60 s" in shown


def test_gradients_are_clipped(tmp_path: Path, settings: Any) -> None:
    """The optimizer's first moment is a mean of what it was given: never above the longest gradient."""
    torch.manual_seed(0)
    steep = trainer(tmp_path, plan(settings, gradient_clip=0.5), feed())
    steep.module.weight.register_hook(lambda gradient: gradient * 1e6)
    steep.train(None)
    (state,) = load_checkpoint(tmp_path / "fusion-bn-c2-0003.params").training["optimizer"]["state"].values()
    assert 0.1 < state["exp_avg"].norm() <= 0.5


def test_gradients_that_overflow_are_an_error(tmp_path: Path, settings: Any) -> None:
    torch.manual_seed(0)
    broken = trainer(tmp_path, plan(settings), feed())
    broken.module.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = broken.module.weight.detach().clone()
    with pytest.raises(TrainError, match=r"the gradients are not finite at iteration 0 .*learning_rate"):
        broken.train(None)
    assert torch.equal(broken.module.weight, before)


def test_a_diverging_loss_is_an_error(tmp_path: Path, settings: Any) -> None:
    torch.manual_seed(0)
    broken = trainer(tmp_path, plan(settings), feed())
    with torch.no_grad():
        broken.module.weight.fill_(float("inf"))
    with pytest.raises(TrainError, match="not finite at iteration 0"):
        broken.train(None)
