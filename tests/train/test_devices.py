"""Devices: where bfloat16 may be used."""

import json
from pathlib import Path

import pytest

from configs import load
from train import devices
from train.session import Request, train_step


@pytest.mark.parametrize(("flags", "has"), [({"avx2", "avx512_bf16"}, True), ({"avx2", "avx512_vnni"}, False)])
def test_bfloat16_is_the_processors(flags: set[str], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "processor_flags", lambda: frozenset(flags))
    assert devices.has_bfloat16("cpu,cpu") == has


def test_a_processor_without_bfloat16_trains_in_float32_and_says_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "processor_flags", lambda: frozenset({"avx2"}))
    config = load(repository / "configs/4pe_resize/embedded.py")
    train_step(Request(config, 0, tmp_path, True, "cpu", resume=False, seed=1))
    assert "no bfloat16: trains in float32" in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text())["with-bn"]["precision"] == "float32"
