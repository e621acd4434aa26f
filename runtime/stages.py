"""How long the way from a picture's file to its boxes takes, part by part, and how well the parts overlap on a stream.

No masks in the picture's size, nothing is drawn or written. The parts are measured alone, on one thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2

from runtime.engine import CompiledEngine, set_threads
from runtime.image import Picture, read_picture
from runtime.predict import Prediction, Predictor, by_any
from runtime.stream import in_order
from runtime.timing import Statistics, Stopwatch

WARMUP = 4


@dataclass(frozen=True)
class Stages:
    """Statistics of the parts "decode", "pre", "inference" and "post", and of a picture's "whole" way.

    `stream` is in pictures a second, `workers` at a time.
    """

    parts: dict[str, Statistics]
    workers: int
    stream: float

    @property
    def bound(self) -> float:
        """Pictures a second if nothing but the parts took time, and they not longer than alone (their medians)."""
        parts = [row.median for name, row in self.parts.items() if name != "whole"]
        return self.workers * 1000 / sum(parts)

    def to_json(self) -> dict[str, Any]:
        """JSON-able; milliseconds per part."""
        return {
            "milliseconds": {name: row.to_json() for name, row in self.parts.items()},
            "workers": self.workers,
            "stream": round(self.stream, 2),
            "stream_share": round(self.stream / self.bound, 3),
        }


def measure_stages(engine: CompiledEngine, files: Sequence[Path], count: int, workers: int) -> Stages:
    """Times `count` pictures, the files over and over. From then on the process's kernels use one thread each."""
    set_threads(1)
    cv2.setNumThreads(1)
    manifest = engine.manifest
    predictors = Predictor(engine, manifest.input, manifest.tasks, masks=False).twins(workers)
    stopwatch = Stopwatch()
    # in a thread of its own, as on a stream: memory is not the same there
    alone = in_order(partial(process, predictors[0]), islice(cycle(files), WARMUP + count), workers=1)
    for seconds in islice(alone, WARMUP, None):
        stopwatch.add(seconds)
    return Stages(stopwatch.statistics(), workers, stream_rate(predictors, list(islice(cycle(files), count))))


def process(predict: Callable[[Picture], Prediction], file: Path) -> dict[str, float]:
    """The seconds of the parts."""
    start = perf_counter()
    picture = read_picture(file)
    decoded = perf_counter()
    prediction = predict(picture)
    return {"decode": decoded - start, **prediction.seconds, "whole": perf_counter() - start}


def stream_rate(predictors: Sequence[Predictor], files: Sequence[Path]) -> float:
    """Pictures a second with all predictors at work."""
    done = in_order(partial(process, by_any(predictors)), files, len(predictors))
    start = perf_counter()
    for _ in done:
        pass
    return len(files) / (perf_counter() - start)
