"""What `benchmarks/engines.py` found: as JSON, as a table, and as docs/benchmarks.md."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from exported_network import Network
from rich.table import Table

from runtime.processor import processor_name

Result = dict[str, Any]
OURS = "bitroad"
PACKAGES = ("apache-tvm", "openvino", "nncf", "onnxruntime", "torch")
INTRODUCTION = """# Bitroad and other engines

Written by `python benchmarks/engines.py --all`, after `make setup` and `.venv/bin/pip install -e '.[benchmark]'`. One
size and number of threads alone: `python benchmarks/engines.py --size 448x960 --threads 1 --json F`.

The network is what `configs/4pe_resize/multitask.py` builds. Batch 1, milliseconds from network input in memory to
outputs in memory. Ours includes the post-processing (boxes and masks), the others have none. All engines take turns in
the same seconds on the same cores; the ratio is our minimum over theirs.

- OpenVINO int8: quantized by NNCF, performance preset, from the float network with batch norms absorbed; latency hint.
- ONNX Runtime int8: the fastest of step 2's graph and of two forms by its own quantizer.
- torch: the traced operators in float32, channels last; eager, and through torch.compile with frozen weights.
- Stream: as many pictures at a time as threads, each on one thread, in pictures a second.
- Peak: the best of a micro benchmark of dot products in registers, which runs between the engines. The share counts the
  network's own multiply-adds, no padding.
"""


def summary(
    seconds: dict[str, list[float]], pictures: dict[str, float], peak: float, network: Network, threads: int
) -> Result:
    """JSON-able: seconds of every engine's runs, pictures a second on a stream, peak of one core in multiply-adds."""
    milliseconds = {name: np.array(values) * 1e3 for name, values in seconds.items()}
    best = {name: float(values.min()) for name, values in milliseconds.items()}
    engines: dict[str, dict[str, float]] = {
        name: {"min_ms": round(best[name], 3), "median_ms": round(float(np.median(values)), 3)}
        for name, values in milliseconds.items()
    }
    for name, rate in pictures.items():
        engines[name]["stream_per_s"] = round(rate, 1)
    return {
        "engines": engines,
        "ratio": {name: round(best[OURS] / best[name], 3) for name in best if name != OURS},
        "peak_share": round(network.macs / (best[OURS] / 1e3) / (peak * threads), 3),
        "gmacs": round(network.macs / best[OURS] / 1e6, 1),
        "peak_gmacs": round(peak / 1e9, 1),
        "threads": threads,
        "input": network.size,
        "batch": 1,
        "device": processor_name(),
        "runs": len(seconds[OURS]),
    }


def speed_of(result: Result) -> str:
    """How near the processor's limit ours comes."""
    return (
        f"bitroad: {result['gmacs']} GMAC/s, {result['peak_share']:.1%} of the peak, "
        f"{result['threads']} x {result['peak_gmacs']}"
    )


def cells(result: Result) -> list[list[str]]:
    """A row for each engine."""
    rows = []
    for name, engine in result["engines"].items():
        ratio = f"{result['ratio'][name]:.3f}" if name in result["ratio"] else ""
        stream = f"{engine['stream_per_s']:.1f}" if "stream_per_s" in engine else ""
        rows.append([name, f"{engine['min_ms']:.2f}", f"{engine['median_ms']:.2f}", ratio, stream])
    return rows


TITLES = ("engine", "min ms", "median ms", "ours / theirs", "stream, 1/s")


def table_of(result: Result) -> Table:
    """The comparison for a terminal."""
    table = Table(title=f"{result['input']}, batch 1, {result['threads']} thread(s), {result['device']}")
    for title in TITLES:
        table.add_column(title, justify="left" if title == "engine" else "right")
    for row in cells(result):
        table.add_row(*row)
    return table


def write_page(results: Sequence[Result], path: Path) -> None:
    """The comparison as a page of the documentation."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    parts = [INTRODUCTION, f"{results[0]['device']}; {versions}; {results[0]['runs']} runs of each engine.\n"]
    for result in results:
        count = "one thread" if result["threads"] == 1 else f"{result['threads']} threads"
        parts.append(f"## {result['input']}, {count}\n\n{speed_of(result)}.\n")
        lines = [TITLES, ("---", *["---:"] * (len(TITLES) - 1)), *cells(result)]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    path.write_text("\n".join(parts), encoding="utf-8")
