"""Questions that verify cannot ask: each gets one line that says why, no traceback, exit code 2."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compile.build import main as build
from compile.comparison import Comparison, Tally
from compile.verify import main
from tests.compile.toy import Run, toy_network


@pytest.fixture(scope="module")
def other(toy_config: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Another network of the same interface, built."""
    run = Run(toy_config, tmp_path_factory.mktemp("other"), pictures)
    onnx.save(toy_network(seed=5), str(run.step_2))
    assert build(run.build_arguments()) == 0
    return run


def refused(capsys: pytest.CaptureFixture[str], message: str) -> None:
    error = capsys.readouterr().err
    assert re.match(rf"error: .*{message}", error), error
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_a_library_beside_a_foreign_json(copy: Run, other: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(other.file(".json"), copy.file(".json"))
    assert main(copy.verify_arguments()) == 2
    refused(capsys, r"int-inference-export-last\.so: not the library its manifest .* was written for")


def test_a_foreign_library(copy: Run, other: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With its own manifest it loads; then neither its hashes nor its values are step 2's."""
    for suffix in (".so", ".json"):
        shutil.copy(other.file(suffix), copy.file(suffix))
    assert main(copy.verify_arguments()) == 1
    printed = capsys.readouterr().out
    assert "step 3 is NOT step 2" in printed
    assert printed.count("its hash does not match the source of the .so") == 3


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (".so", r"int-inference-export-last\.so: no such file"),
        (".json", r"int-inference-export-last\.json: no such file"),
        ("-symbol.json", r"int-inference-export-last-symbol\.json: no such file"),
        ("-0000.params", r"int-inference-export-last-0000\.params: no such file"),
        ("onnx", r"step 2's model fusion-bn-c2-export-last\.onnx is not there"),
    ],
)
def test_a_missing_file(copy: Run, capsys: pytest.CaptureFixture[str], missing: str, message: str) -> None:
    (copy.step_2 if missing == "onnx" else copy.file(missing)).unlink()
    assert main(copy.verify_arguments()) == 2
    refused(capsys, message)


def garbage(run: Run) -> None:
    run.step_2.write_bytes(b"123")


def cut_short(run: Run) -> None:
    run.step_2.write_bytes(run.step_2.read_bytes()[:5000])


def another_size(run: Run) -> None:
    onnx.save(toy_network(hw=(72, 112)), str(run.step_2))


def fewer_outputs(run: Run) -> None:
    model = onnx.load(str(run.step_2))
    del model.graph.output[1]
    onnx.save(model, str(run.step_2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (garbage, r"fusion-bn-c2-export-last\.onnx: not a valid ONNX model"),
        (cut_short, r"fusion-bn-c2-export-last\.onnx: not a valid ONNX model"),
        (another_size, r"onnx: takes \(1, 3, 72, 112\) and returns .*the \.so was built from \(1, 3, 72, 104\)"),
        (fewer_outputs, r"onnx: takes .* and returns det_rear\.score_s8, det_rear\.score_s16.* Build it again"),
    ],
)
def test_files_that_do_not_fit(
    copy: Run, capsys: pytest.CaptureFixture[str], spoil: Callable[[Run], None], message: str
) -> None:
    spoil(copy)
    assert main(copy.verify_arguments()) == 2
    refused(capsys, message)


ANCHORS = 'head = {**head, "anchors": [[(14.0, 20.5), (30.0, 25.0)]] * 2}'


@pytest.mark.parametrize(
    ("file", "addition", "message"),
    [
        ("multitask.py", "tasks = [det_rear]", r"its tasks are det_rear, those of the \.so det_rear, seg_lane"),
        (
            "multitask.py",
            "tasks = [seg_lane, det_rear]",
            r"its tasks are seg_lane, det_rear, those of the \.so det_rear",
        ),
        (
            "det_rear.py",
            ANCHORS,
            r"anchors of task det_rear is not that of the \.so; give the config it was built with",
        ),
        (
            "det_rear.py",
            'post_processing = {"nms_output_bbox_num": 7}',
            r"score_threshold of task det_rear is not that",
        ),
    ],
)
def test_another_config(
    built: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, addition: str, message: str
) -> None:
    assert main(built.with_config(tmp_path / "other", file, addition).verify_arguments()) == 2
    refused(capsys, message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--config", "nowhere.py", r"nowhere\.py: no such config file"),
        ("--out", "nowhere", r"nowhere/int-inference-export-last\.so: no such file"),
        ("--images", "nowhere", r"nowhere: nothing to compare on: .*nowhere: no such file"),
        ("--images", "empty", r"empty: no pictures in this folder"),
        ("--images", "text", r"text: nothing to compare on: .*a\.jpg: not a picture"),
        ("--json", "nowhere/verify.json", r".*No such file or directory: .*nowhere/verify\.json"),
    ],
)
def test_wrong_arguments(
    built: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.jpg").write_text("no picture")
    assert main(built.verify_arguments(option, str(tmp_path / value))) == 2
    refused(capsys, message)


def test_no_threads_at_all(built: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(built.verify_arguments("--threads", "0")) == 2
    refused(capsys, "the number of threads must be at least 1, is 0")


def test_a_tally_counts_every_element() -> None:
    tally = Tally("x")
    ours = np.array([[1, -2], [3, 127]], np.int8)
    assert tally.add(ours, ours.astype(np.float32) / 16, 4) == 0
    assert tally.add(ours, np.array([[1, -2], [3, 126.75]], np.float32), 0) == 1
    assert tally.add(ours, np.array([[1, 2], [0, 127]], np.int8), 4) == 2, "integers are compared as they are"
    assert (tally.elements, tally.mismatches, tally.largest_difference) == (12, 3, 4.0)


def test_a_value_between_two_steps_differs() -> None:
    assert Tally("x").add(np.array([3], np.int8), np.array([3 / 16 + 2.0**-20], np.float32), 4) == 1
    assert Tally("x").add(np.array([3], np.int8), np.array([np.nan], np.float32), 4) == 1


def test_other_shapes_differ_altogether() -> None:
    tally = Tally("x")
    assert tally.add(np.zeros((2, 3), np.int8), np.zeros((3, 2), np.int8), None) == 6
    assert tally.largest_difference == float("inf")


def test_nothing_compared_is_not_equal() -> None:
    assert not Comparison().equal
    assert Comparison(pictures=1).equal
    assert not Comparison(pictures=1, problems=["a hash"]).equal
