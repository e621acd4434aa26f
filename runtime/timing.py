"""Times of repeated work, their statistics, and a line that shows how far the work is."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from runtime.stderr import say


@dataclass(frozen=True)
class Statistics:
    """Milliseconds of `count` repetitions."""

    count: int
    min: float
    median: float
    mean: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Statistics":
        """The statistics of at least one duration."""
        values = np.asarray(seconds) * 1e3
        median, p90, p99 = np.percentile(values, [50, 90, 99])
        return cls(len(values), float(values.min()), float(median), float(values.mean()), float(p90), float(p99))

    def to_json(self) -> dict[str, float]:
        """JSON-able, to the microsecond."""
        return {key: round(value, 3) for key, value in asdict(self).items()}


class Stopwatch:
    """Durations by the name of the part of the work, parts in the order of their first appearance."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Times what is done inside; nothing is added if it fails."""
        start = time.perf_counter()
        yield
        self.seconds[part].append(time.perf_counter() - start)

    def add(self, seconds: dict[str, float]) -> None:
        """Adds durations measured elsewhere."""
        for part, duration in seconds.items():
            self.seconds[part].append(duration)

    def once(self) -> dict[str, float]:
        """What `add` takes, of parts that were measured once."""
        return {part: values[0] for part, values in self.seconds.items()}

    def statistics(self) -> dict[str, Statistics]:
        """Per part."""
        return {part: Statistics.of(values) for part, values in self.seconds.items() if values}


def statistics_table(rows: dict[str, Statistics]) -> str:
    """The rows as text, milliseconds."""
    lines = [f"{'ms':<12}{'count':>7}{'min':>9}{'median':>9}{'mean':>9}{'p90':>9}{'p99':>9}"]
    for name, row in rows.items():
        numbers = "".join(f"{value:>9.2f}" for value in (row.min, row.median, row.mean, row.p90, row.p99))
        lines.append(f"{name:<12}{row.count:>7}{numbers}")
    return "\n".join(lines)


class Progress:
    """One line on the error stream, rewritten in place on a terminal; elsewhere a new line now and then."""

    INTERVAL = 5.0

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stderr.isatty()
        self._shown = -self.INTERVAL

    def show(self, done: int, text: str) -> None:
        """`text` names what is being done, `done` counts what is finished; a total of 0 means nobody knows it."""
        head = f"[{done}/{self._total}]" if self._total else f"[{done}]"
        if self._terminal:
            say(f"\r\x1b[K{head} {text}"[:160])
        elif time.monotonic() - self._shown >= self.INTERVAL:
            say(f"{head} {text}\n")
            self._shown = time.monotonic()

    def clear(self) -> None:
        """Leaves the line free for other messages."""
        if self._terminal:
            say("\r\x1b[K")
