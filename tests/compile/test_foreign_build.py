"""What a build of a foreign model leaves in its folder, and what it leaves alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from compile.build import main
from compile.foreign import build
from runtime.tensor_model import TensorModel
from tests.compile.engines import TARGET
from tests.compile.foreign_graphs import Graph, all_in_float
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


def test_a_tensor_may_be_an_output_and_read_on(tmp_path: Path) -> None:
    """Nodes without names, tensors with slashes in theirs, weights in a file beside the model."""
    g = Graph()
    first = g.pair(conv(g, g.pair("x", S), S), 8 * S)
    second = g.pair(g.node("MaxPool", [first], kernel_shape=[2, 2]), 8 * S)
    model = onnx.load(g.finish(tmp_path / "model.onnx", second))
    model.graph.output.append(onnx.helper.make_tensor_value_info(first, onnx.TensorProto.FLOAT, None))
    for node in model.graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [name if name == "x" else f"/layer/{name}" for name in names]
    for entry in (*model.graph.initializer, *model.graph.output):
        entry.name = f"/layer/{entry.name}"
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(model, str(tmp_path / "model.onnx"), save_as_external_data=True, size_threshold=64, location="weights")
    assert run(tmp_path / "model.onnx", tmp_path / "out") == 0
    picture = g.picture(0)
    found = TensorModel(tmp_path / "out/model.so").run(picture)
    expected = all_in_float(tmp_path / "model.onnx", picture)
    assert list(found) == [f"/layer/{second}", f"/layer/{first}"]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found.values(), expected, strict=True))
