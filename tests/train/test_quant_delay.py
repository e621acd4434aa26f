"""A step 0 that begins in float: where it switches, what it computes on either side, and what may branch off there."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs import Config, load
from train.checkpoint import load_checkpoint
from train.devices import make_fabric
from train.feed import Feed
from train.run import Run
from train.session import Request, train_step
from train.steps import prepare

DELAYED = """
solver = [{**solver[0], "quant_delay": 0.5, "freeze_fraction": 0.2}, *solver[1:]]
"""


@pytest.fixture(scope="module")
def config(tiny_config: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_config(tmp_path_factory.mktemp("delayed"))
    with path.open("a") as file:
        file.write(DELAYED)
    return path


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    train_step(Request(load(config), 0, folder, True, "cpu", resume=False, seed=1))
    return Run(folder)


def test_it_is_float_before_and_quantized_afterwards(config: Path, run: Run) -> None:
    before, last = (load_checkpoint(path) for path in (run.floating(0), run.last(0)))
    models = [prepare(load(config), 0, start=checkpoint, before=None) for checkpoint in (before, last)]
    assert [model.output_shifts() is None for model in models] == [True, False]
    assert not any("observer.count" in name and value for name, value in before.model.items())


def test_it_is_resumed_to_the_same_bits_from_the_moment_before(config: Path, run: Run, tmp_path: Path) -> None:
    shutil.copy(run.floating(0), tmp_path)
    train_step(Request(load(config), 0, tmp_path, True, "cpu", resume=True, seed=1))
    expected, found = load_checkpoint(run.last(0)).model, load_checkpoint(Run(tmp_path).last(0)).model
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_quantized_values_are_never_rounded_to_bfloat16(config: Path) -> None:
    loaded = load(config)
    network = prepare(loaded, 0, start=None, before=None).network
    feed = Feed(loaded, 0, pipeline_test=True, seed=1, fabric=make_fabric("cpu", bfloat16=False))
    (batches,) = feed.batches(2)(0, 1)

    def losses(*, bfloat16: bool) -> list[float]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return [float(value) for value in network(batches).values()]

    network.eval()
    assert losses(bfloat16=True) != losses(bfloat16=False)
    network.quantize()
    assert losses(bfloat16=True) == losses(bfloat16=False)


def test_learned_thresholds_rest_until_then_in_several_processes_too(config: Path, tmp_path: Path) -> None:
    shutil.copytree(config.parent, tmp_path / "config")
    learned = tmp_path / "config" / config.name
    with learned.open("a") as file:
        file.write('env = {**env, "shifts": "learned"}\n')
    out = tmp_path / "run"
    command = [sys.executable, "-m", "train.train", "--config", learned, "--step", "0", "--pipeline-test"]
    subprocess.run([*command, "--ctx", "cpu,cpu", "--out", out], check=True)
    name = "backbone.stem.quantizer.log2_threshold"
    assert load_checkpoint(Run(out).floating(0)).model[name] == 0
    assert load_checkpoint(Run(out).last(0)).model[name] != 0


def test_a_training_in_float_branches_off(
    config: Path, run: Run, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    accuracy: Any = importlib.import_module("accuracy")
    shutil.copy(run.floating(0), tmp_path)
    loaded: Config = load(config)
    export = accuracy.train_in_float(loaded, tmp_path, accuracy.Clock(tmp_path), pipeline_test=True)
    assert export == tmp_path / "float/2/with-bn-export-last.onnx"
    first, started = (load_checkpoint(path) for path in (Run(export.parent.parent / "0").last(0), run.floating(0)))
    iterations = loaded.pipeline_test.epochs * loaded.pipeline_test.iterations_per_epoch
    assert (first.progress["iteration"], first.progress["quantized"]) == (iterations, False)
    weight = "backbone.stem.conv.weight"
    assert not torch.equal(first.model[weight], started.model[weight])
    last = prepare(loaded, 0, start=load_checkpoint(Run(export.parent).last(0)), before=None)
    assert last.output_shifts() is None
