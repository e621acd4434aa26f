"""`train.train` from the command line: the files of a run, what the exports hold, kills, damage, and wrong calls."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from configs import load
from tests.train.conftest import assert_equal_state
from train.checkpoint import load_checkpoint
from train.train import main

PREFIXES = ("with-bn", "fusion-bn-c1", "fusion-bn-c2")
POST_PROCESSING = {"ArgMax", "NonMaxSuppression", "TopK", "Sigmoid", "Exp", "Softmax"}


def exported(run: Any, prefix: str) -> onnx.ModelProto:
    return onnx.load(str(run.folder / f"{prefix}-export-last.onnx"))


def batch_norm_weights(model: onnx.ModelProto) -> list[str]:
    return [node.input[1] for node in model.graph.node if node.op_type == "BatchNormalization"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_step_leaves_the_files_of_the_contract(tiny_run: Any, prefix: str) -> None:
    for part in ("init.params", "0001.params", "0002.params", "last-0000.params", "export-last.onnx"):
        assert (tiny_run.folder / f"{prefix}-{part}").is_file()
    assert not list(tiny_run.folder.glob(".*")), "temporary files are left"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_exports_are_valid_and_hold_no_post_processing(tiny_run: Any, prefix: str) -> None:
    model = exported(tiny_run, prefix)
    onnx.checker.check_model(model, full_check=True)
    assert not {node.op_type for node in model.graph.node} & POST_PROCESSING
    assert [output.name for output in model.graph.output] == list(load(tiny_run.config).output_names)
    trained = load_checkpoint(tiny_run.folder / f"{prefix}-last-0000.params").model
    assert {entry.name for entry in model.graph.initializer} <= trained.keys(), "parameters keep their dotted names"


def test_batch_norms_disappear_step_by_step(tiny_run: Any) -> None:
    names = [batch_norm_weights(exported(tiny_run, prefix)) for prefix in PREFIXES]
    shared = re.compile(r"backbone\.|neck\.")
    assert any(shared.match(name) for name in names[0])
    assert any(name.startswith("det_person.") for name in names[0])
    assert names[1] == [name for name in names[0] if not shared.match(name)]
    assert names[2] == []


def test_the_shared_part_is_computed_once(tiny_run: Any) -> None:
    weights = [
        node.input[0] for node in exported(tiny_run, "fusion-bn-c2").graph.node if node.op_type == "QuantizeLinear"
    ]
    kernels = [name for name in weights if name.endswith(".conv.weight")]
    assert len(kernels) == len(set(kernels)) > 100


def test_a_step_begins_where_the_one_before_ended(tiny_run: Any) -> None:
    before = load_checkpoint(tiny_run.folder / "fusion-bn-c1-last-0000.params").model
    start = load_checkpoint(tiny_run.folder / "fusion-bn-c2-init.params").model
    kept = [name for name in start if name.startswith("backbone.") and name.endswith("conv.weight")]
    assert kept
    assert all(torch.equal(before[name], start[name]) for name in kept)
    ranges = [name for name in start if name.endswith(("quantizer.shift", "observer.count"))]
    assert all(torch.equal(before[name], start[name]) for name in ranges), "ranges are continued, not begun anew"


def command(config: Path, folder: Path, *more: str, step: int = 0) -> list[str]:
    return ["--config", str(config), "--step", str(step), "--pipeline-test", "--out", str(folder), *more]


def stopped_in_epoch_2(config: Path, folder: Path, repository: Path, how: signal.Signals) -> tuple[int, str]:
    """Exit code and error output of a training whose processes, loading ones included, are all sent a signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "train.train", *command(config, folder)],
        cwd=repository,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "with-bn-0001.params").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (folder / "with-bn-0001.params").exists()
    os.killpg(process.pid, how)
    _, error = process.communicate()
    return process.returncode, error


def test_a_request_to_end_saves_what_there_is(tiny_run: Any, tmp_path: Path, repository: Path) -> None:
    code, error = stopped_in_epoch_2(tiny_run.config, tmp_path, repository, signal.SIGTERM)
    assert code == 130, error
    assert "stopped; all is saved in" in error
    assert "--resume" in error
    assert (tmp_path / "with-bn-resume.params").is_file(), "between two epochs"
    assert main(command(tiny_run.config, tmp_path, "--resume")) == 0
    assert_same_bits(tiny_run.folder, tmp_path)


def test_a_killed_run_resumes_to_the_same_bits(tiny_run: Any, tmp_path: Path, repository: Path) -> None:
    stopped_in_epoch_2(tiny_run.config, tmp_path, repository, signal.SIGKILL)
    (tmp_path / ".with-bn-0002.params.1234.part").write_bytes(b"what a kill within a write leaves")
    assert not (tmp_path / "with-bn-last-0000.params").exists()
    assert main(command(tiny_run.config, tmp_path, "--resume")) == 0
    assert not list(tmp_path.glob(".*"))
    assert_same_bits(tiny_run.folder, tmp_path)


def assert_same_bits(whole: Path, resumed: Path) -> None:
    """Weights, the optimizer's state and random generators at the end of the last epoch."""
    expected, found = (load_checkpoint(folder / "with-bn-0002.params") for folder in (whole, resumed))
    assert all(torch.equal(tensor, found.model[name]) for name, tensor in expected.model.items())
    assert_equal_state(expected.training, found.training)


def test_a_damaged_checkpoint_is_named(tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (tiny_run.folder / "with-bn-0001.params").read_bytes()
    (tmp_path / "with-bn-0001.params").write_bytes(content[:-100])
    assert main(command(tiny_run.config, tmp_path, "--resume")) == 2
    assert "with-bn-0001.params: damaged or truncated" in capsys.readouterr().err


def test_a_finished_step_is_left_alone(tiny_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    last = tiny_run.folder / "with-bn-last-0000.params"
    before = last.read_bytes()
    assert main(command(tiny_run.config, tiny_run.folder, "--resume")) == 0
    assert "step 0 is finished" in capsys.readouterr().out
    assert last.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "step", "message"),
    [
        ((), 1, r"with-bn-last-0000\.params: no such checkpoint"),
        (("--ctx", "gpu"), 0, r"--ctx gpu: give cpu"),
        (("--ctx", "7"), 0, r"--ctx 7: this machine has"),
    ],
)
def test_wrong_calls_are_explained(
    tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], step: int, message: str
) -> None:
    assert main(command(tiny_run.config, tmp_path, *more, step=step)) == 2
    assert re.match(f"error: .*{message}", capsys.readouterr().err)


def test_a_pattern_that_matches_nothing_is_explained(
    tiny_config: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    with config.open("a") as file:
        file.write("fusion_bn_patterns = {1: ['backbone.', 'nek.'], 2: ['det_', 'seg_']}\n")
    assert main(command(config, tmp_path / "run")) == 2
    assert re.match(rf"error: {config}: fusion_bn_patterns\.1: 'nek\.' matches no", capsys.readouterr().err)
