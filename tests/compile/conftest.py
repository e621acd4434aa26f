"""The toy network as a run: its config, step 2's ONNX, built once; pictures to compare on."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from compile.build import main
from tests.compile.models import random_picture
from tests.compile.toy import SOURCE_HW, Run, toy_network, write_toy_config


@pytest.fixture(scope="session")
def toy_config(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_config(repository, tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture of the geometry's source size, one that is scaled and cut."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, hw in enumerate((SOURCE_HW, (150, 130))):
        assert cv2.imwrite(str(folder / f"{index}.png"), random_picture(hw, index)[0])
    return folder


@pytest.fixture(scope="session")
def built(toy_config: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Built from the toy's step 2. Shared: a test that changes a file takes `copy`."""
    run = Run(toy_config, tmp_path_factory.mktemp("built"), pictures)
    onnx.save(toy_network(), str(run.step_2))
    assert main(run.build_arguments()) == 0
    return run


@pytest.fixture
def copy(built: Run, tmp_path: Path) -> Run:
    return Run(built.config, Path(shutil.copytree(built.folder, tmp_path / "run")), built.pictures)


@pytest.fixture
def picture() -> np.ndarray:
    """A network input of the toy's size."""
    return random_picture((72, 104), 11)
