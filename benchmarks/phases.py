"""What the benchmarks that train share: the project's own commands, and the time of each phase over all calls."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from train.run import Run

REPOSITORY = Path(__file__).resolve().parent.parent


class Clock:
    """Seconds of each phase, kept in the file `seconds.json` of a run: a run that is continued goes on counting."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._file = run / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent within, whether it ends well or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            self._file.write_text(json.dumps(self.seconds))

    @property
    def minutes(self) -> float:
        """Of all phases."""
        return sum(self.seconds.values()) / 60

    def __str__(self) -> str:
        return ", ".join(f"{name} {value / 60:.1f}" for name, value in self.seconds.items())


def headline(task: dict[str, Any]) -> float | None:
    """Of a task's metrics the number that it is judged by, mIoU or mAP50 in percent; None where nothing is labelled."""
    value: float | None = task["miou" if "miou" in task else "map50"]
    return value


def command(module: str, *arguments: object) -> None:
    """One of the project's own commands, as a user types it. SystemExit with its exit code if it fails."""
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=REPOSITORY, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def train(config: Path, run: Path, clock: Clock, *more: object) -> None:
    """Trains steps 0 to 2 in `run`, each continued where it stopped; one that is finished takes no time."""
    for step in range(3):
        if not Run(run).export(step).is_file():
            with clock.phase(f"step {step}"):
                command("train.train", "--config", config, "--step", step, "--out", run, "--resume", *more)
