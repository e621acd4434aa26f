"""Fixtures that every room's tests may use."""

import os
from pathlib import Path

import pytest
import tvm  # noqa: F401  # the whole of it: a test that runs a model first would load the runtime library alone
from hypothesis import settings

import train  # noqa: F401  # before torch, which reads then how long its threads may spin

settings.register_profile("bitroad", deadline=None)  # a busy machine is no error
settings.load_profile("bitroad")

REPOSITORY = Path(__file__).resolve().parent.parent


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
