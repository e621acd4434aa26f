"""Fixtures that every room's tests may use."""

import os
from pathlib import Path

import pytest
import tvm  # noqa: F401  # the whole of it: a test that runs a model first would load the runtime library alone

import train  # noqa: F401  # before torch, which reads then how long its threads may spin

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What one process runs after the other: the tests of a file, which share what they build, and all files that need
    the run of `tests/train/conftest.py`, which takes minutes to train.
    """
    trained = {item.path for item in items if "tiny_run" in getattr(item, "fixturenames", ())}
    for item in items:
        group = "tiny_run" if item.path in trained else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout under test."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets, from BITROAD_DATA; continuous integration sets it, so nothing is skipped there."""
    folder = os.environ.get("BITROAD_DATA")
    if not folder:
        if os.environ.get("CI"):
            pytest.fail("CI runs without BITROAD_DATA: the tests on real photos would be skipped")
        pytest.skip("BITROAD_DATA is not set: the real photos are not part of the project")
    return Path(folder)
