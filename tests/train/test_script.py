"""The one command of a night: the whole pipeline as a user types it, and which calls may continue a folder.

The second part runs the script with a stand-in for Python that trains nothing: the script's own decisions are tested.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.train.conftest import SCRIPT

PREFIXES = ("with-bn", "fusion-bn-c1", "fusion-bn-c2")
OF_EACH = (
    "init.params",
    "0001.params",
    "last-0000.params",
    "export-last.onnx",
    "export-last-symbol.json",
    "export-last-0000.params",
)
OF_STEP_3 = ("-symbol.json", "-0000.params", ".so", ".json")
STAND_IN = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  *"$FAILING"*) exit 1 ;;
  *"train.train"*"--step 0"*)
    sleep 0.05  # files of one tick of the clock have no order
    [ "$TRAINED" != yes ] || touch "$OUT/with-bn-init.params"
    exit "$CODE" ;;
esac
"""


def test_the_whole_pipeline(tiny_run: Any, repository: Path) -> None:
    run = tiny_run.folder
    expected = {f"{prefix}-{name}" for prefix in PREFIXES for name in OF_EACH}
    expected |= {f"int-inference-export-last{ending}" for ending in OF_STEP_3} | {"verify.txt", "verify.json"}
    assert expected <= {entry.name for entry in run.iterdir()}
    assert not (run / "unfinished").exists()
    for prefix in PREFIXES:
        onnx.checker.check_model(onnx.load(str(run / f"{prefix}-export-last.onnx")), full_check=True)
    assert json.loads((run / "verify.json").read_text())["mismatches"] == 0
    assert "0 mismatches on 3 pictures" in (run / "verify.txt").read_text()
    pair = [run / f"int-inference-export-last{ending}" for ending in OF_STEP_3[:2]]
    before = [file.read_bytes() for file in pair]
    build = [sys.executable, "-m", "compile.build", "--config", str(tiny_run.config), "--out", str(run)]
    subprocess.run(build, cwd=repository, check=True)
    assert [file.read_bytes() for file in pair] == before, "a second process builds the same bytes"


class Folder:
    """A run folder, and the script called on it; its training ends as it is told."""

    def __init__(self, tmp_path: Path, repository: Path) -> None:
        self.out = tmp_path / "run"
        self.mark = self.out / "unfinished"
        self._calls = tmp_path / "calls"
        self._repository = repository
        python = tmp_path / "bin" / "python"
        python.parent.mkdir()
        python.write_text(STAND_IN)
        python.chmod(0o755)
        self._path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"

    def call(
        self, *arguments: str, code: int, trained: bool = True, failing: str = "no such command"
    ) -> subprocess.CompletedProcess[str]:
        config = "configs/4pe_resize/multitask.py"
        environment = {"PATH": self._path, "CALLS": str(self._calls), "OUT": str(self.out), "CODE": str(code)}
        environment["FAILING"] = failing
        return subprocess.run(
            ["bash", SCRIPT, "--config", config, "--out", str(self.out), *arguments],
            cwd=self._repository,
            env=os.environ | environment | {"TRAINED": "yes" if trained else "no"},
            text=True,
            capture_output=True,
            check=False,
        )

    def trainings(self) -> list[str]:
        return [line for line in self._calls.read_text().splitlines() if "train.train" in line]


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Folder:
    return Folder(tmp_path, repository)


@pytest.mark.parametrize("code", [2, 130, 137])
def test_the_same_call_continues_what_broke_off(folder: Folder, code: int) -> None:
    """137: killed. 2: a full disk, hours after it began."""
    assert folder.call(code=code).returncode == code
    done = folder.call(code=0)
    assert done.returncode == 0, done.stderr
    assert "continuing it" in done.stdout
    assert ["--resume" in line for line in folder.trainings()] == [False, True, True, True]
    assert not folder.mark.exists()


@pytest.mark.parametrize(
    "failing",
    ["--step 1", "--step 2", "compile.importer", "compile.build", "train.data.generate", "compile.verify"],
)
def test_what_fails_after_step_0_fails_the_call(folder: Folder, failing: str) -> None:
    """The comparison's exit code, too, whose output goes through a pipe."""
    failed = folder.call(code=0, failing=failing)
    assert failed.returncode == 1
    assert "Done." not in failed.stdout
    assert folder.mark.exists()
    done = folder.call(code=0)
    assert done.returncode == 0, done.stderr
    assert "continuing it" in done.stdout
    assert not folder.mark.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config is missing"),
        (("--config",), "--config needs a value"),
        (("--config", "none.py"), "none.py: no such config file"),
        (("--what",), "unknown argument '--what'"),
    ],
)
def test_wrong_calls(repository: Path, arguments: tuple[str, ...], message: str) -> None:
    refused = subprocess.run(["bash", SCRIPT, *arguments], cwd=repository, text=True, capture_output=True, check=False)
    assert refused.returncode == 2
    assert f"error: {message}" in refused.stderr


def test_another_call_does_not_take_its_place(folder: Folder) -> None:
    folder.call(code=130)
    refused = folder.call("--pipeline-test", code=0)
    assert refused.returncode == 2
    assert "unfinished run; continue it with: bash tools/quanti_training_2step_fusion_bn.sh --config" in refused.stderr
    assert len(folder.trainings()) == 1
    assert "continuing it" in folder.call(code=0).stdout


def test_a_pipeline_test_is_given_up_for_a_training(folder: Folder) -> None:
    folder.call("--pipeline-test", code=130)
    assert folder.call("--seed", "3", code=0).returncode == 0
    assert not any("--resume" in line for line in folder.trainings())


def test_a_call_that_was_refused_leaves_no_mark(folder: Folder) -> None:
    assert folder.call(code=2, trained=False).returncode == 2
    assert not folder.mark.exists()
