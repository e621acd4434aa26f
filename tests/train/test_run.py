"""A run's folder: what may start, what continues, what is refused."""

from pathlib import Path

import pytest

from configs import load
from train.checkpoint import Checkpoint, save_checkpoint
from train.errors import CheckpointError, TrainError
from train.run import Run, enter, identity, previous_checkpoint

REAL = {"config": "c", "pipeline_test": False, "seed": 1, "processes": 1}
TEST = {"config": "c", "pipeline_test": True, "seed": 1, "processes": 1}


def put(path: Path, iteration: int, who: dict) -> None:
    save_checkpoint(path, Checkpoint({}, {"iteration": iteration, "identity": who}))


def test_an_empty_folder_starts_fresh(tmp_path: Path) -> None:
    assert enter(Run(tmp_path), 0, REAL, resume=False) == ("fresh", None)
    assert enter(Run(tmp_path), 0, REAL, resume=True) == ("fresh", None)


def test_the_furthest_checkpoint_is_continued(tmp_path: Path) -> None:
    run = Run(tmp_path)
    put(run.init(0), 0, REAL)
    put(run.epoch(0, 1), 10, REAL)
    put(run.resume(0), 14, REAL)
    put(run.epoch(1, 1), 99, REAL)
    state, checkpoint = enter(run, 0, REAL, resume=True)
    assert state == "continue"
    assert checkpoint is not None
    assert checkpoint.progress["iteration"] == 14


def test_a_damaged_checkpoint_is_never_passed_over(tmp_path: Path) -> None:
    run = Run(tmp_path)
    put(run.init(0), 0, REAL)
    put(run.epoch(0, 1), 10, REAL)
    run.epoch(0, 1).write_bytes(run.epoch(0, 1).read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"with-bn-0001\.params"):
        enter(run, 0, REAL, resume=True)


def test_a_training_is_not_overwritten_but_a_pipeline_test_is(tmp_path: Path) -> None:
    run = Run(tmp_path)
    put(run.init(0), 0, REAL)
    with pytest.raises(TrainError, match=r"step 0 is begun.*--resume"):
        enter(run, 0, TEST, resume=False)
    put(run.last(0), 10, REAL)
    with pytest.raises(TrainError, match=r"step 0 is finished.*--out"):
        enter(run, 0, REAL, resume=False)
    put(run.init(1), 0, TEST)
    assert enter(run, 1, REAL, resume=False) == ("fresh", None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "--seed"),
        ({"config": "d"}, "config"),
        ({"pipeline_test": True}, "--pipeline"),
        ({"processes": 2}, "--ctx"),
    ],
)
def test_another_run_is_not_continued(tmp_path: Path, change: dict, named: str) -> None:
    put(Run(tmp_path).init(0), 0, REAL)
    with pytest.raises(TrainError, match=named):
        enter(Run(tmp_path), 0, REAL | change, resume=True)


def test_a_finished_step_is_left_alone(tmp_path: Path) -> None:
    put(Run(tmp_path).last(0), 10, REAL)
    assert enter(Run(tmp_path), 0, REAL, resume=True)[0] == "finished"


def test_a_step_needs_the_one_before(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert previous_checkpoint(run, 0, pipeline_test=False) is None
    with pytest.raises(CheckpointError, match=r"with-bn-last-0000\.params.*--step 0"):
        previous_checkpoint(run, 1, pipeline_test=False)
    put(run.last(0), 10, TEST)
    assert previous_checkpoint(run, 1, pipeline_test=True) is not None
    with pytest.raises(TrainError, match=r"with-bn-last-0000\.params: comes from a pipeline test"):
        previous_checkpoint(run, 1, pipeline_test=False)


@pytest.mark.parametrize("resume", [False, True])
def test_a_step_that_starts_again_does_not_take_a_later_training_with_it(tmp_path: Path, resume: bool) -> None:
    run = Run(tmp_path)
    put(run.epoch(2, 1), 5, TEST)
    assert enter(run, 0, REAL, resume=resume)[0] == "fresh"
    put(run.epoch(1, 1), 5, REAL)
    with pytest.raises(TrainError, match=r"a training of step 1.*fusion-bn-c1-\*"):
        enter(run, 0, REAL, resume=resume)


def test_starting_again_clears_this_step_and_what_came_after(tmp_path: Path) -> None:
    kept = ["with-bn-last-0000.params", "notes.txt"]
    gone = ["fusion-bn-c1-0001.params", "fusion-bn-c2-export-last.onnx", "int-inference-export-last.so", "verify.json"]
    gone += ["calibrated-export-last.onnx", "calibration.json"]
    for name in kept + gone:
        (tmp_path / name).touch()
    Run(tmp_path).clear(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_identity_follows_the_content_of_the_config(repository: Path) -> None:
    resize = load(repository / "configs/4pe_resize/multitask.py")
    crop = load(repository / "configs/4pe_crop/multitask.py")
    mine = identity(resize, pipeline_test=False, seed=1, processes=1)
    assert mine == identity(resize, pipeline_test=False, seed=1, processes=1)
    assert mine["config"] != identity(crop, pipeline_test=False, seed=1, processes=1)["config"]


def test_speed_and_output_may_change_between_two_parts_of_a_run(repository: Path) -> None:
    config = load(repository / "configs/4pe_resize/multitask.py")
    mine = identity(config, pipeline_test=False, seed=1, processes=1)
    common = config.common.model_copy(update={"load_threads": 7, "threads": 1, "default_ctx": "0"})
    assert identity(config.model_copy(update={"common": common}), pipeline_test=False, seed=1, processes=1) == mine
    common = config.common.model_copy(update={"crop_hw": (256, 256)})
    assert identity(config.model_copy(update={"common": common}), pipeline_test=False, seed=1, processes=1) != mine
