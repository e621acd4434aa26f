"""What the benchmarks that train share: the project's own commands, and the time of each phase over all calls."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from runtime.files import write_atomically
from train.loop import Interrupted

REPOSITORY = Path(__file__).resolve().parent.parent
NOTING_SECONDS = 5.0


class Clock:
    """Seconds of each phase, kept in the file `seconds.json` of a run: a run that is continued goes on counting."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._file = run / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time spent within, whether it ends well or not: noted all the time, so that a kill loses none."""
        before, began, over = self.seconds.get(name, 0.0), time.monotonic(), threading.Event()

        def note() -> None:
            self.seconds[name] = before + time.monotonic() - began
            write_atomically(self._file, json.dumps(self.seconds).encode())

        def keep_noting() -> None:
            while not over.wait(NOTING_SECONDS):
                note()

        noting = threading.Thread(target=keep_noting, daemon=True)
        noting.start()
        try:
            yield
        finally:
            over.set()
            noting.join()
            note()

    @property
    def minutes(self) -> float:
        """Of all phases."""
        return sum(self.seconds.values()) / 60

    def __str__(self) -> str:
        return ", ".join(f"{name} {value / 60:.1f}" for name, value in self.seconds.items())


def leave_with(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the exit code of `main`, or with 130 where it was stopped, to be continued."""
    try:
        sys.exit(main())
    except (Interrupted, KeyboardInterrupt):
        print("\nstopped; call it again to go on", file=sys.stderr)
        sys.exit(130)


def headline(task: dict[str, Any]) -> float | None:
    """Of a task's metrics the number that it is judged by, mIoU or mAP50 in percent; None where nothing is labelled."""
    value: float | None = task["miou" if "miou" in task else "map50"]
    return value


def command(module: str, *arguments: object) -> None:
    """One of the project's own commands, as a user types it. SystemExit with its exit code if it fails.

    Ctrl-C reaches the command, too, which is given the time to save its work.
    """
    with subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)], cwd=REPOSITORY) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
    if code:
        raise SystemExit(code)


def train(config: Path, run: Path, clock: Clock, *more: object) -> None:
    """Trains steps 0 to 2 in `run`, each continued where it stopped. What another config began there is refused."""
    for step in range(3):
        with clock.phase(f"step {step}"):
            command("train.train", "--config", config, "--step", step, "--out", run, "--resume", *more)
