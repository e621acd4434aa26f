"""`train.evaluate` and `train.predict`: one metric for every kind of model, and data that does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from configs import load
from configs.task import FolderSource, TaskData
from runtime.predict import Detection, Prediction
from train.data.errors import DataError
from train.data.folder_writer import FolderWriter
from train.data.generate import main as generate
from train.data.samples import Boxes, Sample, TaskLabels
from train.data.scenes import render_scene
from train.engines import load_predictor
from train.evaluate import evaluate, main
from train.predict import main as predict
from train.validation import validation_sets

STEP_2 = "fusion-bn-c2"


def metrics(run: Any, model: str, folder: Path, *more: str) -> dict[str, Any]:
    file = folder / f"{model}.json"
    arguments = ["--config", str(run.config), "--model", str(run.folder / model), "--json", str(file), *more]
    assert main(arguments) == 0
    found: dict[str, Any] = json.loads(file.read_text())["tasks"]
    return found


def test_all_kinds_of_a_model_have_the_same_metrics(tiny_run: Any, tmp_path: Path) -> None:
    from_checkpoint = metrics(tiny_run, f"{STEP_2}-last-0000.params", tmp_path)
    assert metrics(tiny_run, f"{STEP_2}-export-last.onnx", tmp_path) == from_checkpoint
    assert metrics(tiny_run, "int-inference-export-last.so", tmp_path) == from_checkpoint, "to the last digit"
    person, lane = from_checkpoint["det_person"], from_checkpoint["seg_lane"]
    assert set(person) == {"map", "map50", "per_class"}
    assert set(person["per_class"]["pedestrian"]) == {"map", "map50"}
    assert set(lane) == {"miou", "line_f1", "line_iou", "per_class"}
    assert 0 < lane["miou"] < 100
    values = [entry["miou"] for entry in lane["per_class"].values()]
    assert lane["miou"] == pytest.approx(np.mean([value for value in values if value is not None]))


def test_all_kinds_of_a_model_find_the_same_boxes(tiny_run: Any, tmp_path: Path) -> None:
    """So few iterations hardly find a box that is labelled; here the labels are what the compiled model finds."""
    compiled = load_predictor(tiny_run.folder / "int-inference-export-last.so", load(tiny_run.config))
    writer = FolderWriter(tmp_path / "found", {"det_person": TaskLabels(("pedestrian",))})
    for seed in range(2):
        picture = render_scene(seed, (256, 512)).image
        boxes = [entry.box for entry in compiled(picture).detections if entry.task == "det_person"]
        writer.add(f"{seed}", Sample(picture, {"det_person": Boxes.of([(*box, 0, False) for box in boxes])}, {}))
    writer.close()
    models = (f"{STEP_2}-last-0000.params", f"{STEP_2}-export-last.onnx", "int-inference-export-last.so")
    found = [metrics(tiny_run, model, tmp_path, "--data", str(tmp_path / "found")) for model in models]
    assert found[0] == found[1] == found[2], "to the last digit"
    assert 0 < found[0]["det_person"]["map"] <= 100


def test_the_users_own_folder_is_measured(tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    assert generate(["--out", str(folder), "--count", "2", "--seed", "5"]) == 0
    all_of_it = metrics(tiny_run, f"{STEP_2}-export-last.onnx", tmp_path, "--data", str(folder))
    first = metrics(tiny_run, f"{STEP_2}-export-last.onnx", tmp_path, "--data", str(folder), "--limit", "1")
    assert all_of_it["seg_lane"] != first["seg_lane"]


def test_other_classes_are_refused(tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.zeros((256, 512, 3), np.uint8)
    writer = FolderWriter(tmp_path / "own", {"det_person": TaskLabels(("somebody",))})
    writer.add("0001", Sample(picture, {"det_person": Boxes.of([(0, 0, 40, 40, 0, False)])}, {}))
    writer.close()
    model = tiny_run.folder / f"{STEP_2}-export-last.onnx"
    arguments = ["--config", str(tiny_run.config), "--model", str(model), "--data", str(tmp_path / "own")]
    assert main(arguments) == 2
    assert "the classes of task det_person are ('somebody',)" in capsys.readouterr().err


def test_masks_out_of_range_are_refused(tiny_run: Any, tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path, {})
    writer.add("0001", Sample(np.zeros((64, 64, 3), np.uint8), {}, {"seg_lane": np.full((64, 64), 9, np.uint8)}))
    writer.close()
    config = load(tiny_run.config)
    source = FolderSource(kind="folder", path=str(tmp_path))
    lane = config.task("seg_lane").model_copy(update={"data": TaskData(train=(source,), val=(source,))})
    ((_, pictures),) = validation_sets(config.model_copy(update={"tasks": (lane,)}))
    with pytest.raises(DataError, match=r"seg_lane of picture 0 .* holds class 9, the config has \d"):
        list(pictures)


def test_what_the_network_was_not_shown_does_not_count(tiny_run: Any, tmp_path: Path) -> None:
    """A picture higher than the input's shape: rows at its top are cut off."""
    boxes = Boxes.of([(10, 0, 40, 60, 0, False), (100, 600, 160, 700, 0, False)])
    writer = FolderWriter(tmp_path, {"det_person": TaskLabels(("pedestrian",))})
    writer.add("0001", Sample(np.zeros((800, 512, 3), np.uint8), {"det_person": boxes}, {}))
    writer.close()
    config = load(tiny_run.config)

    class Finds:
        """A predictor of the second box only."""

        tasks = ()
        window = load_predictor(tiny_run.folder / f"{STEP_2}-export-last.onnx", config).window

        def __call__(self, picture: np.ndarray) -> Prediction:
            found = Detection("det_person", "pedestrian", 0, 0.9, (100.0, 600.0, 160.0, 700.0))
            return Prediction((picture.shape[0], picture.shape[1]), (found,), {})

    assert evaluate(Finds(), config, data=tmp_path)["tasks"]["det_person"]["map50"] == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("model", "ctx", "message"),
    [
        ("fusion-bn-c2-export-last.onnx", "gpu", "--ctx gpu: give cpu or the number of a GPU"),
        ("fusion-bn-c2-last-0000.params", "0", "--ctx 0 is for an exported model"),
        ("fusion-bn-c2-export-last-0000.params", "cpu", "give the .onnx beside it"),
        ("int-inference-export-last-0000.params", "cpu", "give int-inference-export-last.so beside it"),
        ("with-bn-nothing.onnx", "cpu", "no such file"),
    ],
)
def test_models_that_cannot_predict(
    tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, ctx: str, message: str
) -> None:
    file = tiny_run.folder / model
    if model.endswith("export-last-0000.params"):
        file = tmp_path / model
        file.write_bytes(b"weights of a Relax module")
    arguments = ["--config", str(tiny_run.config), "--model", str(file), "--ctx", ctx]
    assert predict([*arguments, "--images", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_predict_writes_results_masks_and_overlays(tiny_run: Any, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    assert generate(["--out", str(pictures), "--count", "2", "--seed", "5", "--only-images"]) == 0
    model = tiny_run.folder / f"{STEP_2}-export-last.onnx"
    arguments = ["--config", str(tiny_run.config), "--model", str(model), "--images", str(pictures)]
    assert predict([*arguments, "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [len(entry["masks"]) for entry in results["images"]] == [1, 1]
    for entry in results["images"]:
        mask = cv2.imread(str(tmp_path / "out" / entry["masks"]["seg_lane"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (entry["height"], entry["width"])
    assert len(list((tmp_path / "out" / "overlays").glob("*.jpg"))) == 2


def test_predict_has_the_options_of_infer(tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    assert generate(["--out", str(pictures), "--count", "1", "--seed", "5", "--only-images"]) == 0
    (pictures / "bad.png").write_bytes(b"no picture")
    capsys.readouterr()
    model = tiny_run.folder / f"{STEP_2}-export-last.onnx"
    arguments = ["--config", str(tiny_run.config), "--model", str(model), "--images", str(pictures)]
    options = ["--score-threshold", "1", "--tasks", "det_person", "--no-overlay", "--no-masks", "--json"]
    assert predict([*arguments, "--out", str(tmp_path / "out"), *options]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["detections"]) == (1, 0)
    assert [entry["file"] for entry in report["failed"]] == [str(pictures / "bad.png")]
    files = {"results.json", "coco_results.json", "coco_images.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files


def test_a_task_without_labels_has_no_metric(tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    writer = FolderWriter(folder, {})
    writer.add("0001", Sample(np.zeros((256, 512, 3), np.uint8), {}, {"seg_lane": np.zeros((256, 512), np.uint8)}))
    writer.close()
    found = metrics(tiny_run, f"{STEP_2}-export-last.onnx", tmp_path, "--data", str(folder))
    assert found["det_person"]["map"] is None
    assert found["seg_lane"]["miou"] is not None
