"""How long every layer of a compiled model takes, read from the running `.so`, and what the processor could do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runtime.artifact import by_call
from runtime.engine import CompiledEngine, watching
from runtime.image import Picture

PEAK_ROUNDS = 40


@dataclass(frozen=True)
class LayerTime:
    """The best time of a call. `layers`: what it computes; `macs`: its multiply-adds, 0 where it has none; `peak`: of
    the processor, a second.
    """

    layers: tuple[str, ...]
    function: str
    seconds: float
    macs: int
    peak: float

    @property
    def name(self) -> str:
        """The layer, and how many others there are."""
        others = len(self.layers) - 1
        return self.layers[0] + (f" and {others} more" if others else "")

    @property
    def rate(self) -> float:
        """Multiply-adds a second."""
        return self.macs / self.seconds

    def to_json(self) -> dict[str, Any]:
        """JSON-able, with milliseconds, GMAC/s and the share of the peak in percent."""
        return {
            "name": self.name,
            "layers": list(self.layers),
            "function": self.function,
            "milliseconds": round(self.seconds * 1e3, 4),
            "gmacs": round(self.rate / 1e9, 1),
            "peak_share": round(100 * self.rate / self.peak, 1),
        }


def layer_times(engine: CompiledEngine, picture: Picture, im_hw: tuple[int, int], count: int) -> list[LayerTime]:
    """Every kernel call of a run, by its layers' names and others by their functions', the best of `count` runs.

    The peak is measured between the runs, on one thread.
    """
    layers = engine.manifest.layers
    functions = {layer["function"] for layer in layers}
    best: list[tuple[str, float]] = []
    fastest = measure_peak(engine)
    for _ in range(count):
        with _watched(engine.vm) as calls:
            engine.run(picture, im_hw)
        best = [(name, min(seconds, known)) for (name, seconds), (_, known) in zip(calls, best or calls, strict=True)]
        fastest = max(fastest, measure_peak(engine, rounds=1))
    following = iter(by_call(layers))
    times = []
    for function, seconds in best:
        if function in functions:
            together = next(following)
            names = tuple(layer["name"] for layer in together)
            times.append(LayerTime(names, function, seconds, sum(layer["macs"] for layer in together), fastest))
        elif not function.startswith("vm.builtin"):
            times.append(LayerTime((function,), function, seconds, 0, fastest))
    return times


def measure_peak(engine: CompiledEngine, rounds: int = PEAK_ROUNDS) -> float:
    """Multiply-adds a second of the best of `rounds` calls of the model's own `peak`: dot products in registers."""
    peak, best = engine.vm["peak"], float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        peak()
        best = min(best, time.perf_counter() - start)
    return float(engine.manifest.target["peak_macs"]) / best


@contextmanager
def _watched(vm: Any) -> Iterator[list[tuple[str, float]]]:
    """Yields the list that the calls of one run go to: function and seconds."""
    calls: list[tuple[str, float]] = []
    began = 0.0

    def on_call(_function: Any, name: str, before: bool, _result: Any, *_: Any) -> int:
        nonlocal began
        if before:
            began = time.perf_counter()
        else:
            calls.append((name, time.perf_counter() - began))
        return 0

    with watching(vm, on_call):
        yield calls
