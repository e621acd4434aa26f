"""The loop of one training step: iterations, checkpoints between and after epochs, and a clean stop on Ctrl-C.

What a resumed run needs beside the weights is the optimizer's state, the random generators' state and the number of
iterations done: learning rate and order of pictures follow from that number.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric

from quant import processes
from runtime.interruption import stop_flag
from train.checkpoint import Checkpoint, random_state, restore_random_state, save_checkpoint
from train.errors import TrainError
from train.optimizer import ChannelwiseAdamW
from train.progress import Reporter, append_result
from train.run import Run
from train.schedule import Plan

FITTING = 24  # batches at most that `Trainable.fit_ranges` may look at
SAVE_SECONDS = 300.0  # at most this much work is lost to a kill
Batches = Callable[[int, int], Iterator[Any]]


class Trainable(Protocol):
    """The network of a step with its losses, a torch module. `quantized`: whether it computes fake-quantized."""

    quantized: bool

    def __call__(self, batches: Any) -> dict[str, torch.Tensor]:
        """Loss of every task for one iteration's batches."""

    def freeze(self) -> None:
        """Fixes shifts and batch statistics; from then on the forward pass computes the graph that is exported."""

    def fit_ranges(self, batches: Iterator[Any]) -> str:
        """What is in float gets ready to be quantized, with batches as of training; a line for the user."""

    def quantize(self) -> None:
        """From now on it computes fake-quantized."""


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The user stopped the run; `path` is the checkpoint to continue from."""


@dataclass
class StepTrainer:
    """Trains `module` (also handed to the Fabric) by `plan`; `facts` go into every checkpoint beside the progress."""

    fabric: Fabric
    module: Any
    batches: Batches
    plan: Plan
    run: Run
    facts: Mapping[str, Any]
    reporter: Reporter
    done: int = 0
    frozen: bool = False
    sums: dict[str, float] = field(default_factory=dict)
    waited: float = 0.0  # seconds, for data
    loop_began: float = 0.0

    def train(self, start: Checkpoint | None) -> None:
        """Runs the step from its beginning or from `start` to its last checkpoint. Interrupted on Ctrl-C."""
        optimizer = ChannelwiseAdamW(self.module, self.plan.settings.weight_decay)
        self.wrapped, self.optimizer = self.fabric.setup(self.module, optimizer)
        self.wrapped.train()
        if start is not None:
            self._restore(start)
        else:
            if self.plan.quantize_at == 0:  # or after a delay too short for an iteration
                self.module.quantize()
            self._save(self.run.init(self.plan.step))
        self._began = self._saved = time.monotonic()
        with stop_flag() as stop:
            for batches in self._timed(self.batches(self.done, self.plan.iterations)):
                self._iterate(batches)
                self._after_iteration()
                if self._any_process(stop()):
                    path = self.run.resume(self.plan.step)
                    self._save(path)
                    raise Interrupted(str(path))
        self._finish()

    def _iterate(self, batches: Any) -> None:
        if self.done >= self.plan.quantize_at and not self.module.quantized:
            self._quantize()
        if self.done >= self.plan.freeze_at and not self.frozen:
            self._freeze()
        rate = self.plan.learning_rate(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        losses = self.wrapped(batches)
        total = torch.stack(list(losses.values())).sum()
        means = processes.mean(torch.stack([*losses.values(), total]))  # the same numbers in every process
        values = dict(zip((*losses, "loss"), means.tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise self._diverged("the loss is", values)
        self.fabric.backward(total)
        limit = self.plan.settings.gradient_clip
        norm = self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        if norm is not None and not torch.isfinite(norm):
            raise self._diverged("the gradients are", values)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.reporter.iteration(self.done, values, rate)

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same, the time that each takes to come noted; the first one's is that of starting the loaders."""
        began = time.monotonic()
        for number, batch in enumerate(batches):
            came = time.monotonic()
            self.waited += came - began if number else 0.0
            self.loop_began = self.loop_began or came
            yield batch
            began = time.monotonic()

    def _waiting_percent(self) -> float:
        """Share of the time since the first batch in which there was none to train on."""
        return 100.0 * self.waited / max(1e-9, time.monotonic() - self.loop_began)

    def _any_process(self, flag: bool) -> bool:
        """Whether it is true in one of the processes: all of them save or stop after the same iteration."""
        return bool(processes.greatest(torch.tensor(float(flag), device=self.fabric.device)))

    def _diverged(self, what: str, losses: Mapping[str, float]) -> TrainError:
        return TrainError(
            f"{self.plan.prefix}: {what} not finite at iteration {self.done} ({losses}); "
            f"lower solver.{self.plan.step}.learning_rate and train the step again"
        )

    def _after_iteration(self) -> None:
        epoch, within = divmod(self.done, self.plan.iterations_per_epoch)
        if within == 0:
            means = {name: total / self.plan.iterations_per_epoch for name, total in self.sums.items()}
            self.sums = {}
            if self.fabric.is_global_zero:
                row: dict[str, float] = {"step": self.plan.step, "epoch": epoch, "iteration": self.done}
                row["seconds"] = round(time.monotonic() - self._began, 1)
                row["learning_rate"] = self.plan.learning_rate(self.done - 1)
                row["waiting_percent"] = round(self._waiting_percent(), 1)
                row.update(means)
                append_result(self.run.folder / "results.csv", row)
            self._save(self.run.epoch(self.plan.step, epoch))
        elif self._any_process(time.monotonic() - self._saved > SAVE_SECONDS):
            self._save(self.run.resume(self.plan.step))

    def _finish(self) -> None:
        if not self.frozen:
            self._freeze()
        if not self.module.quantized:
            self._fit_ranges()
        self._save(self.run.last(self.plan.step), resumable=False)
        self.reporter.say(f"waited for data in {self._waiting_percent():.1f}% of the time")
        if self.fabric.is_global_zero:
            self.run.resume(self.plan.step).unlink(missing_ok=True)

    def _quantize(self) -> None:
        """Saves what is in float until here, from which another training may branch off."""
        self._save(self.run.floating(self.plan.step))
        self._fit_ranges()
        self.module.quantize()

    def _fit_ranges(self) -> None:
        pictures = self.batches(self.done, self.done + min(self.done, FITTING))
        self.reporter.say(self.module.fit_ranges(pictures))

    def _freeze(self) -> None:
        self.module.freeze()
        self.frozen = True

    def _save(self, path: Any, *, resumable: bool = True) -> None:
        """On the first process; the others wait, so that none runs ahead of a checkpoint."""
        if self.fabric.is_global_zero:
            progress = {
                **self.facts,
                "iteration": self.done,
                "epoch": self.done // self.plan.iterations_per_epoch,
                "frozen": self.frozen,
                "quantized": self.module.quantized,
                "sums": self.sums,
            }
            training = {"optimizer": self.optimizer.state_dict(), "random": random_state()} if resumable else {}
            save_checkpoint(path, Checkpoint(self.module.state_dict(), progress, training))
        self.fabric.barrier()
        self._saved = time.monotonic()

    def _restore(self, start: Checkpoint) -> None:
        self.done = int(start.progress["iteration"])
        self.sums = dict(start.progress["sums"])
        if start.progress["quantized"]:
            self.module.quantize()
        if start.progress["frozen"]:
            self._freeze()
        self.module.load_state_dict(start.model)
        self.optimizer.load_state_dict(start.training["optimizer"])
        for parameter, state in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # the fused step pairs elements by their places in memory
                state[name] = torch.empty_like(parameter).copy_(state[name])
        restore_random_state(start.training["random"])
