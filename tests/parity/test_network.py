"""The real network, compiled: every element of every output, box and mask is step 2's, on scenes and on photos.

The build is `compile.build`'s and the comparison `compile.verify`'s, both called as their commands are.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm  # noqa: F401  # all of it, before an engine would load the runtime part alone

from compile.build import CALIBRATED, STEP_3
from compile.build import main as build
from compile.certify import layer_calls
from compile.files import load_pair, save_pair
from compile.layers import ConvLayer
from compile.recorder import LayerRecorder
from compile.verify import main as verify
from compile.witness import LEVELS
from configs import load
from runtime.engine import CompiledEngine
from runtime.geometry import Placement
from runtime.image import read_picture
from runtime.infer import main as infer
from runtime.results import write_picture
from tests.parity.harness import fused_session
from tests.parity.processor import FUSED_WITNESS, NO_FUSED_WITNESS
from tests.parity.steps import export, first_step, next_step, saturating_step_2
from tests.seventh_task import add_seventh_task
from train.data.generate import main as generate
from train.export import network_image
from train.train import main as train

RESIZE, CROP = "configs/4pe_resize", "configs/4pe_crop"
GEOMETRIES = {"1080x1920": (512, 960), "1080x2280": (512, 1140)}
FLOAT_STEP_0 = 'solver = [{**solver[0], "mode": "kFloatTraining"}, *solver[1:]]\n'
SAMPLE_HW = (224, 480)


@dataclass(frozen=True)
class Built:
    """A run folder with step 2's ONNX and the compiled model."""

    config: Path
    folder: Path

    def verify(self, pictures: Path) -> dict[str, Any]:
        """`compile.verify`'s result; fails with it unless all is equal."""
        result = self.folder / "verify.json"
        arguments = ["--config", str(self.config), "--out", str(self.folder), "--images", str(pictures)]
        code = verify([*arguments, "--json", str(result)])
        found: dict[str, Any] = json.loads(result.read_text())
        assert (code, found["mismatches"], found["problems"], found["layers"]["differing"]) == (0, 0, [], [])
        return found

    def engine(self) -> CompiledEngine:
        return CompiledEngine(self.folder / f"{STEP_3}.so", threads=1)

    def network_input(self, picture: Path) -> np.ndarray:
        pixels = read_picture(picture)
        return Placement.of((pixels.shape[0], pixels.shape[1]), self.engine().manifest.input).network_input(pixels)

    def run(self, picture: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What the compiled model's convolutions and additions return, and its outputs, by name."""
        engine = self.engine()
        recorder = LayerRecorder(engine.manifest.layers)
        with recorder.watching(engine.vm):
            outputs = engine.run(self.network_input(picture))
        kinds = {layer["name"]: layer["kind"] for layer in engine.manifest.layers}
        rounded = ("conv_layer", "add_layer")
        return {name: value for name, value in recorder.values.items() if kinds[name] in rounded}, outputs


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two embedded scenes of different sizes."""
    folder = tmp_path_factory.mktemp("scenes")
    assert generate(["--out", str(folder), "--count", "2", "--seed", "11", "--only-images"]) == 0
    return folder


@pytest.fixture(scope="session")
def photos(real_data: Path) -> Path:
    """All 14 of them."""
    folder = real_data / "road_photos"
    assert len([path for path in folder.iterdir() if path.suffix in (".jpg", ".png")]) == 14
    return folder


@pytest.fixture(scope="session")
def two_photos(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each size."""
    folder = tmp_path_factory.mktemp("photos")
    paths = sorted(path for path in photos.iterdir() if path.suffix in (".jpg", ".png"))
    by_size = {read_picture(path).shape: path for path in paths}
    assert len(by_size) == 2
    for path in by_size.values():
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def sample(scenes: Path) -> np.ndarray:
    """Part of a scene, as a network input that the observers see."""
    picture = read_picture(min(scenes.iterdir()))
    top, left = (picture.shape[0] - SAMPLE_HW[0]) // 2, (picture.shape[1] - SAMPLE_HW[1]) // 2
    return picture[None, top : top + SAMPLE_HW[0], left : left + SAMPLE_HW[1]]


@pytest.fixture(scope="session")
def saturating(repository: Path, sample: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """Builds a saturating network of a config, with random weights."""

    def make(config_file: Path, seed: int) -> Built:
        folder = tmp_path_factory.mktemp("run")
        saturating_step_2(load(config_file), seed, sample, folder)
        assert build(["--config", str(config_file), "--out", str(folder)]) == 0
        return Built(config_file, folder)

    return make


@pytest.fixture(scope="session")
def built(saturating: Callable[..., Built], repository: Path) -> Built:
    """The default config."""
    return saturating(repository / RESIZE / "multitask.py", 0)


def changed(repository: Path, folder: Path, addition: str) -> Path:
    """A copy of the resize config with a line added to its main file."""
    target = folder / "4pe_resize"
    shutil.copytree(repository / RESIZE, target, ignore=shutil.ignore_patterns("__pycache__"))
    file = target / "multitask.py"
    file.write_text(file.read_text() + addition)
    return file


def test_scenes(built: Built, scenes: Path) -> None:
    found = built.verify(scenes)
    assert found["pictures"] == 2
    assert found["layers"]["compared"] > 160
    assert sum(output["elements"] for output in found["outputs"]) > 2 * 1_045_905


def test_photos(built: Built, two_photos: Path) -> None:
    assert built.verify(two_photos)["pictures"] == 2


@pytest.mark.skipif(not FUSED_WITNESS, reason=NO_FUSED_WITNESS)
@pytest.mark.parametrize("level", LEVELS)
def test_int8_kernels_of_onnx_runtime_agree(built: Built, scenes: Path, level: str) -> None:
    """Whoever runs step 2 as ONNX Runtime does by default gets the same bits, too."""
    picture = max(scenes.iterdir())
    session = fused_session(built.folder / "fusion-bn-c2-export-last.onnx", level)
    theirs = session.run(None, {"image": network_image(built.network_input(picture))})
    ours = built.run(picture)[1]
    heads = [output for output in built.engine().manifest.outputs if output.shift is not None]
    for output, value in zip(heads, theirs, strict=True):
        integers = np.ldexp(value.astype(np.float64), output.shift).transpose(0, 2, 3, 1)
        assert np.array_equal(integers, ours[output.name]), output.name


def test_many_values_saturate(built: Built, scenes: Path) -> None:
    layers, outputs = built.run(max(scenes.iterdir()))
    ends = [float(np.isin(value, (-128, 127)).mean()) for value in layers.values()]
    assert np.mean(ends) > 0.04
    assert sum(share > 0.01 for share in ends) > len(ends) / 4
    assert_alive(outputs)


def assert_alive(outputs: Mapping[str, np.ndarray]) -> None:
    """In most channels of every head's map the place makes a difference."""
    for name, value in outputs.items():
        if value.dtype == np.int8:
            assert np.mean(np.ptp(value.astype(int), axis=(1, 2)) > 3) > 0.5, f"{name} is nearly constant"


def test_float_training_calibrated(repository: Path, sample: np.ndarray, scenes: Path, tmp_path: Path) -> None:
    """Step 0 in plain float; what calibration makes of it is step 2."""
    config_file = changed(repository, tmp_path, FLOAT_STEP_0)
    export(first_step(load(config_file), 1, sample), tmp_path)
    run = build_from("with-bn", config_file, tmp_path, "--calib-images", str(scenes))
    assert run.verify(scenes)["pictures"] == 2
    assert_alive(run.run(max(scenes.iterdir()))[1])


@pytest.mark.matrix
def test_a_trained_float_model_calibrated(repository: Path, scenes: Path, photos: Path, tmp_path: Path) -> None:
    """In the demo's style; the report names what calibration costs."""
    config_file = changed(repository, tmp_path, FLOAT_STEP_0)
    folder = tmp_path / "run"
    arguments = ["--config", str(config_file), "--step", "0", "--pipeline-test", "--out", str(folder)]
    assert train(arguments) == 0
    run = build_from("with-bn", config_file, folder, "--calib-images", str(scenes))
    assert run.verify(photos)["pictures"] == 14
    report = json.loads((folder / "calibration.json").read_text())
    assert set(report["outputs"]) == set(load(config_file).output_names)
    assert min(entry["cosine"] for entry in report["outputs"].values()) >= 0.99
    assert report["worst_layer"] in report["layers"]


def build_from(source: str, config_file: Path, folder: Path, *more: str) -> Built:
    """A run whose step 2 is the ONNX that the compiler writes."""
    assert build(["--config", str(config_file), "--out", str(folder), "--source", source, *more]) == 0
    assert (folder / CALIBRATED).is_file()
    return Built(config_file, folder)


@pytest.mark.matrix
@pytest.mark.parametrize("source", ["with-bn", "fusion-bn-c1"])
def test_quantized_steps_folded_by_the_compiler(
    repository: Path, sample: np.ndarray, scenes: Path, tmp_path: Path, source: str
) -> None:
    """Activations keep the scales that the graph carries: no pictures are needed."""
    config_file = repository / RESIZE / "multitask.py"
    prepared = first_step(load(config_file), 2, sample)
    export(prepared if source == "with-bn" else next_step(prepared, sample), tmp_path)
    run = build_from(source, config_file, tmp_path)
    assert run.verify(scenes)["pictures"] == 2
    assert_alive(run.run(max(scenes.iterdir()))[1])


@pytest.mark.matrix
def test_all_photos(built: Built, photos: Path) -> None:
    assert built.verify(photos)["pictures"] == 14


@pytest.mark.matrix
def test_what_a_user_gets_of_all_photos(built: Built, photos: Path, tmp_path: Path) -> None:
    assert infer(["--model", str(built.folder / f"{STEP_3}.so"), "--images", str(photos), "--out", str(tmp_path)]) == 0
    tasks = load(built.config).tasks
    assert len(json.loads((tmp_path / "results.json").read_text())["images"]) == 14
    assert len(list((tmp_path / "overlays").glob("*.jpg"))) == 14
    for task in tasks:
        if task.kind == "segmentation":
            assert len(list((tmp_path / "masks" / task.name).glob("*.png"))) == 14


@pytest.mark.matrix
def test_a_planted_fault_is_named(built: Built, scenes: Path, tmp_path: Path) -> None:
    """20 random weights of channels whose output varies, changed by 32 units."""
    run = Built(built.config, Path(shutil.copytree(built.folder, tmp_path / "run")))
    picture = Path(shutil.copy(min(scenes.iterdir()), tmp_path))
    layers, _ = run.run(picture)
    module, parameters = load_pair(run.folder / STEP_3)
    rng = np.random.default_rng(0)
    convolutions = sorted(call.name for call in layer_calls(module) if isinstance(call.layer, ConvLayer))
    for name in rng.choice(convolutions, 20, replace=False):
        weight = parameters[f"{name}.weight"].copy()
        channel = rng.choice(np.flatnonzero(np.ptp(layers[name].astype(int), axis=(0, 1, 2)) > 0))
        place = (channel, *(rng.integers(size) for size in weight.shape[1:]))
        weight[place] += 32 if weight[place] < 95 else -32
        save_pair(run.folder / STEP_3, module, parameters | {f"{name}.weight": weight})
        assert build(["--config", str(run.config), "--out", str(run.folder), "--source", "int-inference"]) == 0
        result = run.folder / "verify.json"
        arguments = ["--config", str(run.config), "--out", str(run.folder), "--images", str(picture)]
        assert verify([*arguments, "--json", str(result)]) == 1
        found = json.loads(result.read_text())
        # a weight times a pixel that is 0 all over the picture reaches nothing: its hash tells
        differing = found["layers"]["differing"]
        assert differing[:1] == [name] or (not differing and f"{name}.weight: its hash" in str(found["problems"])), name


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(1, 6))
def test_more_seeds(saturating: Callable[..., Built], repository: Path, scenes: Path, seed: int) -> None:
    saturating(repository / RESIZE / "multitask.py", seed).verify(scenes)


@pytest.mark.matrix
def test_the_crop_variant(saturating: Callable[..., Built], repository: Path, scenes: Path, two_photos: Path) -> None:
    run = saturating(repository / CROP / "multitask.py", 0)
    run.verify(scenes)
    run.verify(two_photos)


TASKS = ("det_cyclist_light", "det_person", "det_rear", "det_vehicle_sign", "seg_default", "seg_lane")
SUBSETS = [
    *((task,) for task in TASKS),
    ("seg_default", "seg_lane"),
    ("det_person", "det_rear"),
    ("det_cyclist_light", "seg_lane"),
    ("seg_default", "det_vehicle_sign", "det_person"),
]


@pytest.mark.parametrize(
    "tasks",
    [
        pytest.param(tasks, marks=() if tasks == ("seg_lane",) else pytest.mark.matrix, id="+".join(tasks))
        for tasks in SUBSETS
    ],
)
def test_a_task_alone_and_some_of_them(
    saturating: Callable[..., Built], repository: Path, two_photos: Path, tmp_path: Path, tasks: tuple[str, ...]
) -> None:
    """By an edit of the list of tasks, and, where none of them finds boxes, of im_hw."""
    edits = f"tasks = [{', '.join(tasks)}]\n"
    if not any(task.startswith("det_") for task in tasks):
        edits += 'int_inference_export_input_shape = {"image": "940x1824"}\n'
    config_file = changed(repository, tmp_path, edits)
    found = saturating(config_file, 0).verify(two_photos)
    assert {output["name"].split(".")[0] for output in found["outputs"]} == set(tasks)


@pytest.mark.matrix
def test_crop_and_resize_on_one_picture(
    built: Built, saturating: Callable[..., Built], repository: Path, photos: Path, tmp_path: Path
) -> None:
    """Their boxes, of which random weights make hundreds, are merged: none of a class twice."""
    crop = saturating(repository / CROP / "multitask.py", 0)
    pictures = (read_picture(path) for path in sorted(photos.iterdir()) if path.suffix in (".jpg", ".png"))
    picture = next(pixels for pixels in pictures if pixels.shape[:2] == (540, 960))
    photo = tmp_path / "photo.jpg"
    write_picture(photo, picture.repeat(2, axis=0).repeat(2, axis=1))
    arguments = [part for run in (built, crop) for part in ("--model", str(run.folder / f"{STEP_3}.so"))]
    arguments += ["--images", str(photo), "--out", str(tmp_path / "out"), "--score-threshold", "0"]
    assert infer(arguments) == 0
    (image,) = json.loads((tmp_path / "out/results.json").read_text())["images"]
    assert (image["height"], image["width"]) == (1080, 1920)
    tasks = {task.name: task for task in load(built.config).tasks}
    by_class: dict[tuple[str, str], list[np.ndarray]] = {}
    for found in image["detections"]:
        by_class.setdefault((found["task"], found["class"]), []).append(np.array(found["box"]))
    assert sum(map(len, by_class.values())) > 100
    for (task, _), boxes in by_class.items():
        limit = tasks[task].post_processing.nms_threshold / 256  # type: ignore[union-attr]
        for index, first in enumerate(boxes):
            assert all(iou(first, second) <= limit + 0.01 for second in boxes[:index])  # the file has two decimals


def iou(a: np.ndarray, b: np.ndarray) -> float:
    common = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


@pytest.mark.matrix
def test_seven_tasks(saturating: Callable[..., Built], repository: Path, two_photos: Path, tmp_path: Path) -> None:
    config_file = changed(repository, tmp_path, "")
    add_seventh_task(repository, config_file)
    found = saturating(config_file, 0).verify(two_photos)
    names = {output["name"].split(".")[0] for output in found["outputs"]}
    assert names == {*TASKS, "seg_drivable"}


@pytest.mark.matrix
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_other_geometries(
    saturating: Callable[..., Built], repository: Path, scenes: Path, two_photos: Path, tmp_path: Path, geometry: str
) -> None:
    shape = f'{{"image": "{geometry}", "im_hw": (1, 2)}}'
    config_file = changed(repository, tmp_path, f"int_inference_export_input_shape = {shape}\n")
    assert load(config_file).input_hw == GEOMETRIES[geometry]
    run = saturating(config_file, 0)
    run.verify(scenes)
    run.verify(two_photos)


@pytest.mark.matrix
def test_a_trained_run(repository: Path, scenes: Path, photos: Path, tmp_path: Path) -> None:
    config_file = repository / RESIZE / "multitask.py"
    for step in "012":
        assert train(["--config", str(config_file), "--step", step, "--pipeline-test", "--out", str(tmp_path)]) == 0
    assert build(["--config", str(config_file), "--out", str(tmp_path)]) == 0
    run = Built(config_file, tmp_path)
    run.verify(scenes)
    assert run.verify(photos)["pictures"] == 14
