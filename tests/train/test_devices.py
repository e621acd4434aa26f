"""Devices: where bfloat16 may be used."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs import load
from train import devices
from train.session import Request, train_step

IN_BFLOAT16 = """
env = {**env, "float_precision": "bfloat16"}
solver = [{**solver[0], "mode": "kFloatTraining"}, *solver[1:]]
"""


@pytest.mark.parametrize(("flags", "has"), [({"avx2", "avx512_bf16"}, True), ({"avx2", "avx512_vnni"}, False)])
def test_bfloat16_is_the_processors(flags: set[str], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "processor_flags", lambda: frozenset(flags))
    assert devices.has_bfloat16("cpu,cpu") == has


def test_a_processor_without_bfloat16_trains_in_float32_and_says_so(
    tiny_config: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(devices, "processor_flags", lambda: frozenset({"avx2"}))
    path = tiny_config(tmp_path)
    with path.open("a") as file:
        file.write(IN_BFLOAT16)
    train_step(Request(load(path), 0, tmp_path, True, "cpu", resume=False, seed=1))
    assert "no bfloat16: trains in float32" in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text())["with-bn"]["precision"] == "float32"


@pytest.mark.parametrize(("given", "spin"), [(None, "10000"), ("7", "7")])
def test_threads_spin_for_a_moment_only_unless_the_environment_says_otherwise(
    given: str | None, spin: str, repository: Path
) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    if given is not None:
        environment["GOMP_SPINCOUNT"] = given
    code = "import os, train; print(os.environ['GOMP_SPINCOUNT'])"
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=repository, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == spin
