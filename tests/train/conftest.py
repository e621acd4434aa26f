"""A run small enough for a test: the real code and configs, two tasks, 128x256 pixels, four iterations a step."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

SCRIPT = "tools/quanti_training_2step_fusion_bn.sh"
MULTITASK = """
tasks = [det_person, seg_lane]
pipeline_test = {"epochs": 2, "iterations_per_epoch": 2, "batch_size": 1, "pictures": 2}
int_inference_export_input_shape = {"image": (1, 128, 256, 3), "im_hw": (1, 2)}
"""
UTILS = """
crop_hw = (128, 256)
resize_hw = (128, 256)
load_threads = 1
threads = 1
geometries = [
    {"name": "tiny", "source_hw": (256, 512), "pyramid_hw": (128, 256), "height": 128, "width": 256},
]
"""
TASK = """
_scenes = {"kind": "scenes", "seed": 1, "count": 4, "sizes": [(256, 512)]}
data = {"train": [_scenes], "val": [_scenes]}
"""
# So few iterations leave all scores near where they began, at 0.01: with this there are boxes to compare.
BOXES = """
post_processing = {**post_processing, "score_threshold": 0.001}
"""


@dataclass(frozen=True)
class TinyRun:
    """Config file and run folder of all steps."""

    config: Path
    folder: Path


def assert_equal_state(expected: Any, found: Any) -> None:
    """Of optimizer and random generators: nested dicts, lists and tuples, tensors bit by bit."""
    assert type(expected) is type(found)
    if isinstance(expected, torch.Tensor):
        assert expected.dtype == found.dtype
        assert torch.equal(expected, found)
    elif isinstance(expected, dict):
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert_equal_state(value, found[key])
    elif isinstance(expected, (list, tuple)):
        for pair in zip(expected, found, strict=True):
            assert_equal_state(*pair)
    else:
        assert expected == found


@pytest.fixture(scope="session")
def tiny_config(repository: Path) -> Callable[[Path], Path]:
    """Makes the tiny config in a folder, from a copy of the resize config; returns its file."""
    return lambda folder: _tiny_config(repository, folder)


def _tiny_config(repository: Path, folder: Path) -> Path:
    target = folder / "tiny"
    shutil.copytree(repository / "configs/4pe_resize", target, ignore=shutil.ignore_patterns("__pycache__"))
    additions = {"multitask.py": MULTITASK, "utils.py": UTILS}
    additions |= {"det_person.py": TASK + BOXES, "seg_lane.py": TASK}
    for name, addition in additions.items():
        with (target / name).open("a") as file:
            file.write(addition)
    return target / "multitask.py"


@pytest.fixture(scope="session")
def tiny_run(
    tiny_config: Callable[[Path], Path], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> TinyRun:
    """All steps of the tiny config, and the comparison, by the one command that a user types: done once for all of
    pytest's processes, each of which has a copy to itself.
    """
    own = tmp_path_factory.getbasetemp()
    made = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny-run"  # says where
    with FileLock(made.with_suffix(".lock")):
        if not made.is_file():
            first = _make_tiny_run(tiny_config, repository, tmp_path_factory.mktemp("tiny"))
            made.write_text(f"{first.config}\n{first.folder}")
    config, folder = map(Path, made.read_text().splitlines())
    return TinyRun(config, shutil.copytree(folder, tmp_path_factory.mktemp("own") / "run"))


def _make_tiny_run(tiny_config: Callable[[Path], Path], repository: Path, folder: Path) -> TinyRun:
    run = TinyRun(tiny_config(folder), folder / "run")
    command = ["bash", SCRIPT, "--config", str(run.config), "--pipeline-test", "--out", str(run.folder)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=repository, check=True, env={**os.environ, "PATH": path})
    return run
