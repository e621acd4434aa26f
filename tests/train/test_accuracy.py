"""benchmarks/accuracy.py: what it calls a problem, and its page."""

import copy
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs import Config, load


@pytest.fixture
def accuracy(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("accuracy")


@pytest.fixture
def config(repository: Path) -> Config:
    return load(repository / "configs/camvid/multitask.py")


def boxes(value: float) -> dict[str, Any]:
    return {"map": value / 2, "map50": value, "per_class": {"a": {"map": value / 2, "map50": value}}}


def pixels(value: float) -> dict[str, Any]:
    return {"miou": value, "per_class": {"road": {"miou": value}, "lane marking": {"miou": None}}}


@pytest.fixture
def results() -> dict[str, Any]:
    detections = ("det_cyclist_light", "det_person", "det_rear", "det_vehicle_sign")
    scenes = {name: boxes(50.0) for name in detections} | {"seg_lane": pixels(40.0)}
    one = {"CamVid": {"seg_default": pixels(55.0)}, "comma10k": {"seg_lane": pixels(30.0)}, "scenes": scenes}
    one["all"] = {**copy.deepcopy(scenes), "seg_default": pixels(55.0)}
    return {name: copy.deepcopy(one) for name in ("float", "step 2", "step 3")}


CLOCK = SimpleNamespace(minutes=80.0)


def test_all_well(accuracy: Any, config: Config, results: dict[str, Any]) -> None:
    assert accuracy.verdict(results, CLOCK, config, limit=100.0) == []


def test_what_does_not_hold_is_named(accuracy: Any, config: Config, results: dict[str, Any]) -> None:
    results["float"]["scenes"]["det_person"]["map50"] = 50.6
    results["step 3"]["CamVid"]["seg_default"]["miou"] = results["step 3"]["all"]["seg_default"]["miou"] = 47.9
    found = accuracy.verdict(results, SimpleNamespace(minutes=101.0), config, limit=100.0)
    assert len(found) == 5
    for part in ("step 3's metrics", "101 minutes", "mIoU is 47.90", "det_person, scenes", "seg_default, all"):
        assert any(part in entry for entry in found), part


def test_small_losses_are_no_problem(accuracy: Any, config: Config, results: dict[str, Any]) -> None:
    results["float"]["scenes"]["seg_lane"]["miou"] = 40.5
    assert accuracy.verdict(results, CLOCK, config, limit=100.0) == []


def test_the_page_has_a_row_for_every_task_and_labelled_class(
    accuracy: Any, config: Config, results: dict[str, Any], tmp_path: Path
) -> None:
    clock = accuracy.Clock(tmp_path)
    with clock.phase("step 0"):
        pass
    assert json.loads((tmp_path / "seconds.json").read_text()).keys() == {"step 0"}
    results["float"]["CamVid"]["seg_default"]["miou"] = 54.0
    page = accuracy.accuracy_report.page(config, results, clock, "accuracy", scenes=7)
    assert "| **CamVid** | **seg_default** | all | mIoU | 54.00 | 55.00 | 55.00 | +1.00 |" in page
    assert "|  |  | road | IoU | 55.00 | 55.00 | 55.00 | +0.00 |" in page
    assert "lane marking" not in page
    assert "| **scenes** | **det_rear** | all | mAP | 25.00 | 25.00 | 25.00 | +0.00 |" in page
