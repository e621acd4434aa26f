"""Several processes on CPUs train as one with all their pictures: losses, exports, folded parameters."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from quant.batch_norm import WarmBatchNorm2d
from quant.fold import fold_batch_norm
from train.checkpoint import load_checkpoint

ITERATIONS = 5
CHANGES = """
pipeline_test = {{"epochs": {epochs}, "iterations_per_epoch": 1, "batch_size": {batch}, "pictures": 4}}
solver = [{{**solver[0], "mode": "kFloatTraining"}}, *solver[1:]]
env = {{**env, "float_precision": "float32"}}
int_inference_export_input_shape = {{"image": (1, 128, 256, 3), "im_hw": (1, 2)}}
"""
LARGER = "\ncrop_hw = (256, 384)\nresize_hw = (256, 512)\n"


@pytest.fixture(scope="module")
def config_of(tiny_config: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes the config with a batch size."""

    def make(batch: int) -> Path:
        path = tiny_config(tmp_path_factory.mktemp(f"batch_{batch}"))
        with path.open("a") as file:
            file.write(CHANGES.format(epochs=ITERATIONS, batch=batch))
        with (path.parent / "utils.py").open("a") as file:
            file.write(LARGER)
        return path

    return make


def trained(config: Path, folder: Path, *more: str, step: int = 0, launcher: Sequence[str] = ()) -> Path:
    command = [sys.executable, *launcher, "-m", "train.train", "--config", str(config), "--step", str(step)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "--pipeline-test", "--out", str(folder), *more], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def one(config_of: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(config_of(2), tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def two(config_of: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both steps, so that the second one folds what the first one's statistics became."""
    config, folder = config_of(1), tmp_path_factory.mktemp("two") / "run"
    trained(config, folder, "--ctx", "cpu,cpu")
    return trained(config, folder, "--ctx", "cpu,cpu", step=1)


def losses(folder: Path) -> np.ndarray:
    """By iteration, since an epoch here is one; by task."""
    with (folder / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == "0"]
    return np.array([[float(row[name]) for name in ("loss", "det_person", "seg_lane")] for row in rows])


def test_two_processes_have_the_loss_of_one_with_twice_the_batch(one: Path, two: Path) -> None:
    assert losses(one).shape == (ITERATIONS, 3)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)


def test_they_export_the_same_kind_of_model(one: Path, two: Path) -> None:
    exports = [onnx.load(str(folder / "with-bn-export-last.onnx")).graph for folder in (one, two)]
    nodes, names = (
        [[node.op_type for node in graph.node] for graph in exports],
        [[(entry.name, list(entry.dims)) for entry in graph.initializer] for graph in exports],
    )
    assert nodes[0] == nodes[1]
    assert names[0] == names[1]


def test_statistics_are_those_of_all(one: Path, two: Path) -> None:
    ours, theirs = (load_checkpoint(folder / "with-bn-last-0000.params").model for folder in (one, two))
    means = [name for name in ours if name.endswith("running_var")]
    assert means
    for name in means:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-6)


def test_what_is_folded_is_the_one_formulas_bit_by_bit(two: Path, tiny_run: Any) -> None:
    """In two processes and in one."""
    for folder in (two, tiny_run.folder):
        before = load_checkpoint(folder / "with-bn-last-0000.params").model
        folded = load_checkpoint(folder / "fusion-bn-c1-init.params").model
        units = [name.removesuffix(".conv.bias") for name in folded if name.endswith(".conv.bias")]
        units = [unit for unit in units if f"{unit}.bn.weight" in before and f"{unit}.bn.weight" not in folded]
        assert len(units) > 50
        for unit in units:
            parts = [before[f"{unit}.bn.{part}"].numpy() for part in ("weight", "bias", "running_mean", "running_var")]
            weight, bias = fold_batch_norm(before[f"{unit}.conv.weight"].numpy(), None, *parts, epsilon=1e-5)
            assert np.array_equal(folded[f"{unit}.conv.weight"].numpy(), weight), unit
            assert np.array_equal(folded[f"{unit}.conv.bias"].numpy(), bias), unit


def test_torchrun_is_another_way_to_start_them(config_of: Callable[[int], Path], two: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]
    folder = trained(config_of(1), tmp_path / "run", launcher=launcher)
    assert np.array_equal(losses(folder), losses(two))


def test_batch_norm_of_a_channel_that_hardly_varies() -> None:
    """A channel that hardly varies about a large mean."""
    rng = torch.Generator().manual_seed(0)
    x = 100 + torch.randn(2, 3, 160, 160, generator=rng) * torch.tensor([1e-2, 1.0, 10.0])[:, None, None]
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(x.shape, generator=rng)
    norm, exact = WarmBatchNorm2d(3), torch.nn.BatchNorm2d(3).double()
    found = norm(x)
    (found * weights).sum().backward()
    y = x.detach().double().requires_grad_()
    expected = exact(y)
    (expected * weights).sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_mean.double(), 10 * exact.running_mean, rtol=1e-7, atol=0)
    spread = (exact.running_var - 0.9) * 10  # torch's first average is with 1
    torch.testing.assert_close(norm.running_var.double(), spread, rtol=1e-5, atol=0)
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-3, atol=1e-3 * float(y.grad.abs().max()))
