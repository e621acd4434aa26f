"""benchmarks/engines.py and benchmarks/kernels.py, without the packages of the other engines."""

import importlib
import json
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from compile.build import STEP_3
from tests.compile.toy import Run


@pytest.fixture
def benchmark_module(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/ as its own main sees the others."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module


def small(engines: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 3, "RUNS": 2, "STREAM_ROUNDS": 1, "STREAM_RUNS": 3, "PAUSE": 0.0}.items():
        monkeypatch.setattr(engines, name, value)


@pytest.mark.parametrize("threads", [1, 2])
def test_engines_are_compared(
    benchmark_module: Any, built: Run, threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engines, report = benchmark_module("engines"), benchmark_module("engines_report")
    small(engines, monkeypatch)
    asked: list[tuple[int, int]] = []

    def contender(seconds: float) -> Any:
        def make(threads: int, copies: int) -> list[Any]:
            asked.append((threads, copies))
            return [lambda: time.sleep(seconds) for _ in range(copies)]

        return make

    network = SimpleNamespace(library=built.folder / f"{STEP_3}.so", macs=10**9, size="64x96")
    result = engines.compare(network, {"bitroad": contender(0.004), "other": contender(0.016)}, threads)
    assert result["engines"]["other"]["min_ms"] >= 16
    assert result["ratio"]["other"] == pytest.approx(0.25, rel=0.4)  # whoever sleeps may oversleep
    assert result["peak_share"] > 0
    assert (result["threads"], result["input"]) == (threads, "64x96")
    assert set(asked) == ({(1, 1)} if threads == 1 else {(2, 1), (1, 2)})
    if threads == 2:
        assert 100 < result["engines"]["bitroad"]["stream_per_s"] <= 2 / 0.004
    json.dumps(result)
    page = tmp_path / "benchmarks.md"
    monkeypatch.setattr(report.importlib.metadata, "version", lambda package: "1.0")  # not all are installed here
    report.write_page([result], page)
    assert "| other |" in page.read_text()


def test_single_kernels_are_timed(benchmark_module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = benchmark_module("kernels")
    assert kernels.main(["8 to 16, stride 64", "1x1 16 to 16", "--tile", "4", "--wide"]) == 0
    text = capsys.readouterr().out
    for word in ("1x1 16 to 16", "tile 4", "WideEpilogue"):
        assert word in text
