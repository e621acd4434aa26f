"""What a build of a foreign model leaves in its folder, and what it leaves alone."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compile.build import main
from compile.foreign import build
from runtime.tensor_model import TensorModel
from tests.compile.engines import TARGET
from tests.compile.foreign_graphs import Graph
from tests.compile.test_foreign_ops import conv

S = 1 / 32


def model_file(path: Path, *, seed: int = 0) -> Path:
    g = Graph(seed=seed)
    return g.finish(path, g.pair(conv(g, g.pair("x", S), S), 8 * S))


def run(path: Path, folder: Path, *more: str) -> int:
    return main(["--onnx", str(path), "--out", str(folder), *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_build_takes_the_place_of_the_first(tmp_path: Path) -> None:
    assert run(model_file(tmp_path / "model.onnx"), tmp_path / "out") == 0
    first = contents(tmp_path / "out")
    assert set(first) == {"model.so", "model.json"}
    assert run(model_file(tmp_path / "model.onnx", seed=1), tmp_path / "out") == 0
    second = contents(tmp_path / "out")
    assert second.keys() == first.keys()
    assert second["model.json"] != first["model.json"]
    TensorModel(tmp_path / "out/model.so")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_build_that_ends_early_leaves_what_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    assert run(model_file(tmp_path / "model.onnx"), tmp_path / "out") == 0
    before = contents(tmp_path / "out")

    def interrupted(*_: Any) -> None:
        raise error

    monkeypatch.setattr(build, "report", interrupted)
    model_file(tmp_path / "model.onnx", seed=1)
    with pytest.raises(error):
        build.build_foreign(tmp_path / "model.onnx", tmp_path / "out", TARGET, Console(quiet=True))
    assert contents(tmp_path / "out") == before


def test_a_file_of_that_name_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.json").write_text('{"labels": ["car"]}')
    assert run(model_file(tmp_path / "model.onnx"), tmp_path) == 2
    assert (
        "model.json: is there, and no description of a foreign model; choose another --out" in capsys.readouterr().err
    )
    assert (tmp_path / "model.json").read_text() == '{"labels": ["car"]}'
    assert not (tmp_path / "model.so").exists()


def test_another_processor_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "missing_flags", lambda flags: ["avx512_vnni"])
    assert run(model_file(tmp_path / "model.onnx"), tmp_path / "out", "--target", "avx2") == 2
    assert "--target avx2: this processor has no avx512_vnni; use native" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
