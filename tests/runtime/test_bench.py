"""`runtime.bench` and the statistics behind it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.bench import main
from runtime.timing import Statistics, Stopwatch


def test_statistics() -> None:
    row = Statistics.of([0.001 * value for value in range(1, 101)])
    assert (row.count, row.min, row.mean, row.median) == (100, *map(pytest.approx, (1.0, 50.5, 50.5)))
    assert 90 <= row.p90 <= 91
    assert 99 <= row.p99 <= 100


def test_a_failed_part_is_not_timed() -> None:
    watch = Stopwatch()
    with pytest.raises(OSError, match="full"), watch.measure("write"):
        raise OSError("full")
    assert not watch.statistics()


def test_json(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(library), "--count", "20", "--warmup", "2", "--threads", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    times = report["milliseconds"]
    assert times["count"] == 20
    assert 0 < times["min"] <= times["median"] <= times["p90"] <= times["p99"]
    assert report["throughput"] == pytest.approx(1000 / times["mean"], rel=0.02)
    assert (report["threads"], report["batch"], report["input"]) == (2, 1, "32x72")


def test_table_with_a_picture(
    library: Path, write: Callable[..., Path], scene: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(library), "--count", "5", "--image", str(write("a.png", scene))]) == 0
    text = capsys.readouterr().out
    for word in ("median", "p99", "pictures a second", "threads: 1"):
        assert word in text


def test_from_file_to_boxes_and_on_a_stream(
    library: Path, write: Callable[..., Path], scene: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write("in/a.png", scene).parent
    write("in/b.jpg", scene)
    arguments = ["--model", str(library), "--count", "12", "--image", str(folder), "--threads", "2"]
    assert main([*arguments, "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    rows = stages["milliseconds"]
    assert list(rows) == ["decode", "pre", "inference", "post", "whole"]
    assert {row["count"] for row in rows.values()} == {12}
    parts = sum(rows[part]["median"] for part in ("decode", "pre", "inference", "post"))
    assert stages["workers"] == 2
    assert stages["stream_share"] == pytest.approx(stages["stream"] / (2 * 1000 / parts), abs=0.01)
    assert main(arguments) == 0
    assert "stream, 2 at a time" in capsys.readouterr().out


@pytest.mark.parametrize(("model", "image"), [(False, True), (True, False)])
def test_missing_files(
    library: Path, tmp_path: Path, model: bool, image: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing")
    arguments = ["--model", str(library) if model else missing + ".so", "--image", missing + ".jpg"]
    assert main(arguments) == 2
    assert "no such file" in capsys.readouterr().err
