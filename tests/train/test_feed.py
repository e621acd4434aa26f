"""Loading in the background."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import Config, load
from configs.task import FolderSource, TaskData
from train.data.dataset import TaskDataset
from train.data.errors import DataError
from train.data.generate import main as generate
from train.devices import make_fabric
from train.feed import Feed

PATIENCE = 60  # seconds


def feed_of(config: Config) -> Feed:
    """Of step 0, in one process."""
    return Feed(config, 0, pipeline_test=False, seed=1, fabric=make_fabric("cpu", bfloat16=False))


@pytest.fixture
def busy_opencv() -> Iterator[None]:
    """This process has used OpenCV's pool of threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 0)
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def alarm() -> Iterator[None]:
    """TimeoutError in place of waiting forever."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"no batch after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_picture_that_cannot_be_read_is_named_in_one_line(
    tiny_config: Callable[[Path], Path], tmp_path: Path
) -> None:
    config = load(tiny_config(tmp_path))
    assert generate(["--out", str(tmp_path / "own"), "--count", "2", "--seed", "5"]) == 0
    broken = min((tmp_path / "own" / "images").iterdir())
    broken.write_bytes(broken.read_bytes()[:1000])
    source = FolderSource(kind="folder", path=str(tmp_path / "own"))
    data = TaskData(train=(source,), val=(source,))
    tasks = tuple(task.model_copy(update={"data": data}) for task in config.tasks)
    feed = feed_of(config.model_copy(update={"tasks": tasks}))
    with pytest.raises(DataError) as caught:
        list(feed.batches(2)(0, 1))
    assert str(caught.value).startswith(str(broken))
    assert "Traceback" not in str(caught.value)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("error", [DataError, MemoryError])
def test_an_error_leaves_no_process_behind(
    error: type[Exception], tiny_config: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the error and its traceback, as Python does at the end of a program: it would wait for them."""

    def fail(dataset: TaskDataset, key: object) -> None:
        raise error("no picture")

    monkeypatch.setattr(TaskDataset, "__getitem__", fail)
    feed = feed_of(load(tiny_config(tmp_path)))
    with pytest.raises(error) as caught:
        list(feed.batches(2)(0, 2))
    assert multiprocessing.active_children() == []
    assert caught.traceback


@pytest.mark.usefixtures("busy_opencv", "alarm")
def test_a_process_that_has_used_opencv_can_load(tiny_config: Callable[[Path], Path], tmp_path: Path) -> None:
    feed = feed_of(load(tiny_config(tmp_path)))
    ((batch,), *_) = list(feed.batches(2)(0, 2))
    assert batch.tasks == ("det_person", "seg_lane")
    assert batch.images().shape == (2, 3, 128, 256)
    assert cv2.getNumThreads() == 4
