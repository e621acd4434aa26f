"""Ctrl-C in any command: one line, exit code 130, no traceback."""

import importlib
from pathlib import Path

import pytest

WITH_A_CONFIG = [
    ("train.train", "--step", "0"),
    ("train.evaluate", "--model", "m.so"),
    ("train.predict", "--model", "m.onnx", "--images", "."),
    ("train.data.show",),
    ("train.data.anchors",),
    ("compile.build",),
    ("compile.verify", "--images", "."),
]
WITHOUT_OUT = ("train.evaluate", "train.data.anchors")
OTHERS = [  # the function of the module that is interrupted
    (("train.data.generate", "--out", "{out}", "--count", "1"), "generate"),
    (("train.data.pack", "a", "{out}"), "pack"),
    (("train.data.convert.__main__", "camvid", "--images", "a", "--masks", "b", "{out}"), "convert"),
    (("compile.importer", "a.onnx"), "read_onnx"),
    (("runtime.bench", "--model", "a.so"), "CompiledEngine"),
    (("runtime.infer", "--model", "a.so", "--images", ".", "--out", "{out}"), "find_inputs"),
]


def interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def assert_interrupted(call: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    module, *arguments = call
    assert importlib.import_module(module).main(arguments) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("call", WITH_A_CONFIG, ids=lambda call: call[0])
def test_while_the_config_is_read(call: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config is a program: this one is where Ctrl-C arrives."""
    config = tmp_path / "stop.py"
    config.write_text("raise KeyboardInterrupt\n")
    out = () if call[0] in WITHOUT_OUT else ("--out", str(tmp_path / "out"))
    assert_interrupted((*call, "--config", str(config), *out), capsys)


@pytest.mark.parametrize(("call", "function"), OTHERS, ids=lambda part: part if isinstance(part, str) else part[0])
def test_while_it_works(
    call: tuple[str, ...],
    function: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{call[0]}.{function}", interrupt)
    if call[0] == "train.data.convert.__main__":
        monkeypatch.setattr("train.data.convert.camvid.open_set", lambda options: None)
    assert_interrupted(tuple(part.format(out=tmp_path / "out") for part in call), capsys)
