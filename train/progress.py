"""What a user sees of a step while it runs, and what stays of it: console, results.csv, TensorBoard."""

import csv
import io
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from runtime.files import write_atomically
from train.schedule import Plan

RECENT, FEWEST = 30, 3  # iterations whose median is the pace: some wait for the loader, or for ranges to be fitted
ANNOUNCED = 20  # the iteration after which the pace is trusted for hours ahead
PLAIN_SECONDS = 30.0  # without a terminal: a line at least this often
RESULT_KEYS = ("step", "epoch", "iteration", "seconds", "learning_rate", "waiting_percent", "loss")


class Reporter:
    """Progress of one step on the console; losses as they come in.

    On a terminal a bar with losses and remaining time, else a line every `log_every` iterations. After the first
    iterations it says how long this step, and those after it by their plans `later`, will take.
    """

    def __init__(
        self, plan: Plan, start: int, *, log_every: int, later: Sequence[Plan], folder: Path, quiet: bool
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
        self._plan = plan
        self._start = start
        self._log_every = log_every
        self._later_pictures = sum(entry.iterations * entry.batch_size for entry in later)
        self._last = self._spoken = time.monotonic()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._progress = Progress(
            TextColumn(f"{plan.prefix} epoch {{task.fields[epoch]}}/{plan.epochs}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}  {task.fields[losses]}"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=plan.iterations, completed=start, epoch=1, left="?", losses="")
        self._writer = None if quiet else SummaryWriter(str(folder / "tensorboard" / plan.prefix), purge_step=start)
        self._progress.start()

    def iteration(self, done: int, losses: Mapping[str, float], learning_rate: float) -> None:
        """`done` iterations of the step are over; `losses` (by task, and "loss") are those of the last one."""
        now = time.monotonic()
        self._recent.append(now - self._last)
        self._last = now
        pace = statistics.median(self._recent)
        if done - self._start == ANNOUNCED:
            self._announce(pace, done)
        left = duration(pace * (self._plan.iterations - done)) if len(self._recent) >= FEWEST else "?"
        epoch = (done - 1) // self._plan.iterations_per_epoch + 1
        text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._progress.update(self._bar, completed=done, epoch=epoch, left=left, losses=text)
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, done)
            self._writer.add_scalar("learning_rate", learning_rate, done)
        due = done % self._log_every == 0 or now - self._spoken > PLAIN_SECONDS or done == self._plan.iterations
        if not self.console.is_terminal and due:
            self._spoken = now
            self.console.print(
                f"{self._plan.prefix} epoch {epoch}/{self._plan.epochs} iteration {done}/{self._plan.iterations} "
                f"left {left}  {text}"
            )

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, markup=False)

    def close(self) -> None:
        """Ends bar and TensorBoard file."""
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def _announce(self, seconds_per_iteration: float, done: int) -> None:
        here = seconds_per_iteration * (self._plan.iterations - done)
        text = f"{seconds_per_iteration:.2f} s per iteration: about {duration(here)} for the rest of this step"
        if self._later_pictures:
            later = seconds_per_iteration / self._plan.batch_size * self._later_pictures
            text += f", about {duration(here + later)} with the steps after it if they are as fast"
        self.say(text)


def append_result(path: Path, row: Mapping[str, float]) -> None:
    """Adds one epoch's row to results.csv. Rows of this epoch or later ones (of a run that was interrupted or started
    again) are taken out first.
    """
    key = (int(row["step"]), int(row["epoch"]))
    rows: list[Mapping[str, object]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [old for old in csv.DictReader(file) if (int(old["step"]), int(old["epoch"])) < key]
    rows.append(row)
    columns = list(dict.fromkeys([*RESULT_KEYS, *(name for entry in rows for name in entry)]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
