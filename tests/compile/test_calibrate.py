"""From exports that still have batch norms to step 2's stand-in, and from that to an equal step 3."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compile.build import CALIBRATED, main
from compile.importer import ImportedModel, import_onnx
from compile.passes.equalize_channels import links
from compile.passes.fold_batch_norm import FoldBatchNorm
from compile.pipeline import folding_passes, run_passes
from compile.tensor_statistics import SHIFTS as SHIFTS_TRIED
from compile.tensor_statistics import squared_errors
from compile.verify import main as verify
from compile.witness import float_kernels, open_session
from runtime.artifact import Manifest
from runtime.geometry import Placement
from runtime.image import read_picture
from tests.compile.models import float_image, random_picture, run_onnx
from tests.compile.toy import ALL, HEADS, HW, OF_HEADS, Run, toy_network

Array = np.ndarray
SHIFTS = np.arange(12, -5, -1)


def run_with(model: onnx.ModelProto, prefix: str, config: Path, folder: Path, pictures: Path) -> Run:
    onnx.save(model, str(folder / f"{prefix}-export-last.onnx"))
    return Run(config, folder, pictures)


@pytest.fixture(scope="module")
def float_run(toy_config: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A float-trained step 0 whose deltas are far larger at one stride, calibrated and built."""
    model = toy_network(quantized=False, batch_norms=ALL)
    for entry in model.graph.initializer:
        if entry.name in ("det_rear.delta_s16.predict.bn.weight", "det_rear.delta_s16.predict.bn.bias"):
            entry.CopyFrom(numpy_helper.from_array(4 * numpy_helper.to_array(entry), entry.name))
    run = run_with(model, "with-bn", toy_config, tmp_path_factory.mktemp("float"), pictures)
    assert main(run.build_arguments("--source", "with-bn", "--calib-images", str(pictures))) == 0
    return run


@pytest.fixture(scope="module")
def calibrated(float_run: Run) -> onnx.ModelProto:
    return onnx.load(str(float_run.folder / CALIBRATED))


def scales(model: onnx.ModelProto) -> dict[str, Array]:
    """Scale of every QuantizeLinear by the name of its input; zero points are 0, both nodes of a pair agree."""
    constant = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    constant |= {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in model.graph.node
        if node.op_type == "Constant"
    }
    found, of_integer = {}, {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            found[node.input[0]] = of_integer[node.output[0]] = constant[node.input[1]]
            assert constant[node.input[2]].dtype == np.int8
            assert not constant[node.input[2]].any()
        elif node.op_type == "DequantizeLinear":
            assert np.array_equal(constant[node.input[1]], of_integer[node.input[0]])
    return found


def test_the_calibrated_model_is_standard_onnx(calibrated: onnx.ModelProto) -> None:
    onnx.checker.check_model(calibrated, full_check=True)
    assert [output.name for output in calibrated.graph.output] == list(HEADS)
    assert not [node for node in calibrated.graph.node if node.op_type == "BatchNormalization"]
    for name, value in run_onnx(calibrated, random_picture(HW, 3)).items():
        assert len(np.unique(value)) > 20, name


def test_every_scale_is_a_power_of_two(calibrated: onnx.ModelProto) -> None:
    found = scales(calibrated)
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in found.values())
    channels = {entry.name: entry.dims[0] for entry in calibrated.graph.initializer if ".conv.weight" in entry.name}
    weights = {name: count for name, count in channels.items() if name.endswith(".weight")}
    assert {name: found[name].shape for name in weights} == {name: (count,) for name, count in weights.items()}
    assert found["image"] == 2.0**-7
    assert all(found[name].shape == () for name in found.keys() - weights.keys()), "one per activation"


def output_scales(model: onnx.ModelProto) -> dict[str, float]:
    """Scale of the DequantizeLinear that makes each output."""
    constant = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    producer = {node.output[0]: node for node in model.graph.node}
    return {output.name: float(constant[producer[output.name].input[1]]) for output in model.graph.output}


def test_maps_of_one_kind_share_a_scale(calibrated: onnx.ModelProto) -> None:
    found = output_scales(calibrated)
    assert found["det_rear.score_s8"] == found["det_rear.score_s16"]
    assert found["det_rear.delta_s8"] == found["det_rear.delta_s16"]
    assert found["det_rear.delta_s8"] > found["det_rear.score_s8"], "made larger on purpose"


def float_tensors(model: onnx.ModelProto, names: list[str], pictures: list[Array]) -> dict[str, Array]:
    """Tensors of a float or Q/DQ model over pictures, one after the other."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    present = {output.name for output in model.graph.output}
    extended.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in present)
    session = open_session(extended, float_kernels(), where="model")
    runs = [session.run(names, {"image": float_image(picture)}) for picture in pictures]
    return {name: np.concatenate(values) for name, *values in zip(names, *runs, strict=True)}


def calibration_inputs(run: Run) -> list[Array]:
    geometry = Manifest.load(run.file(".json")).input
    pictures = [read_picture(path) for path in sorted(run.pictures.iterdir())]
    return [Placement.of(pixels.shape[:2], geometry).network_input(pixels) for pixels in pictures]


def best_shift(values: list[Array]) -> int:
    """By trying them all."""

    def error(shift: int) -> float:
        grids = [np.clip(np.rint(value * 2.0**shift), -128, 127) / 2.0**shift for value in values]
        return sum(float(((grid - value) ** 2).sum()) for grid, value in zip(grids, values, strict=True))

    return int(min(SHIFTS, key=error))


def folded_toy(model: onnx.ModelProto) -> ImportedModel:
    """The model without its batch norms."""
    imported = import_onnx(model)
    parameters = dict(imported.parameters)
    module = run_passes(imported.module, folding_passes(FoldBatchNorm(parameters)), None)
    return ImportedModel(module, parameters, imported.output_names)


def test_the_report_tells_what_is_lost(float_run: Run, calibrated: onnx.ModelProto) -> None:
    """Recomputed for the outputs; the layers are those of the graph."""
    report = json.loads((float_run.folder / "calibration.json").read_text())
    source = onnx.load(str(float_run.folder / "with-bn-export-last.onnx"))
    inputs = calibration_inputs(float_run)
    assert report["pictures"] == len(inputs)
    assert len(report["noise"]) == 4
    assert report["noise"][report["way"]] == min(report["noise"].values())
    exact, rounded = (float_tensors(model, list(HEADS), inputs) for model in (source, calibrated))
    for name in HEADS:
        a, b = exact[name].astype(np.float64).ravel(), rounded[name].astype(np.float64).ravel()
        found = report["outputs"][name]
        assert found["cosine"] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)
        assert found["signal_to_noise_db"] == pytest.approx(-10 * np.log10(((a - b) @ (a - b)) / (a @ a)), abs=0.02)
    assert {"backbone.stem.conv", "backbone.block.second.conv", "neck.reduction.conv"} <= report["layers"].keys()
    cosines = {name: entry["cosine"] for name, entry in report["layers"].items()}
    assert cosines[report["worst_layer"]] == min(cosines.values())


def test_scales_have_the_smallest_squared_error(float_run: Run, calibrated: onnx.ModelProto) -> None:
    """Against the unfolded float model, every value of every tensor on the very inputs."""
    source = onnx.load(str(float_run.folder / "with-bn-export-last.onnx"))
    produced = {name for node in source.graph.node for name in node.output}
    found = {
        name.removesuffix(".unquantized"): scale for name, scale in scales(calibrated).items() if scale.shape == ()
    }
    equalized = {str(link.tensor.name) for link in links(folded_toy(source).module)}
    inner = sorted((found.keys() & produced) - set(HEADS) - equalized)
    assert len(inner) > 8
    values = float_tensors(source, inner + list(HEADS), calibration_inputs(float_run))
    for name in inner:
        assert found[name] == 2.0 ** -best_shift([values[name].astype(np.float64)]), name
    for part in ("score", "delta"):
        group = [values[f"det_rear.{part}_s{stride}"].astype(np.float64) for stride in (8, 16)]
        assert output_scales(calibrated)[f"det_rear.{part}_s8"] == 2.0 ** -best_shift(group)


def test_a_tensor_that_was_always_0_gets_the_finest_scale() -> None:
    """As in training: on another picture it may be a little more than 0, but hardly hundreds."""
    assert SHIFTS_TRIED[np.argmin(squared_errors(np.zeros((1, 4, 8, 8), np.float32)))] == 12


def test_step_3_equals_the_calibrated_model(float_run: Run, calibrated: onnx.ModelProto) -> None:
    shifts = {o.name: o.shift for o in Manifest.load(float_run.file(".json")).outputs if o.shift is not None}
    for seed in range(3):
        picture = random_picture(HW, 20 + seed)
        got, expected = float_run.outputs(picture), run_onnx(calibrated, picture)
        for name, shift in shifts.items():
            assert np.array_equal(got[name], np.ldexp(expected[name].transpose(0, 2, 3, 1), shift)), name


def test_verify_compares_with_the_calibrated_model(float_run: Run, tmp_path: Path) -> None:
    assert verify(float_run.verify_arguments("--json", str(tmp_path / "verify.json"))) == 0
    result = json.loads((tmp_path / "verify.json").read_text())
    assert (result["mismatches"], result["layers"]["differing"], result["problems"]) == (0, [], [])
    assert CALIBRATED in Manifest.load(float_run.file(".json")).sources


def test_calibration_is_close_to_the_float_model(float_run: Run, calibrated: onnx.ModelProto) -> None:
    """Scales that were read wrongly, or set to the wrong tensors, would leave nothing of the outputs."""
    picture = random_picture(HW, 1)
    before = run_onnx(onnx.load(str(float_run.folder / "with-bn-export-last.onnx")), picture)
    for name, value in run_onnx(calibrated, picture).items():
        assert np.corrcoef(value.ravel(), before[name].ravel())[0, 1] > 0.9, name


@pytest.mark.parametrize(("source", "batch_norms"), [("with-bn", ALL), ("fusion-bn-c1", OF_HEADS)])
def test_scales_of_the_source_stay(
    toy_config: Path, pictures: Path, tmp_path: Path, source: str, batch_norms: str
) -> None:
    """A quantized model needs no pictures; its activations keep their scales, weights that were not folded theirs."""
    model = toy_network(batch_norms=batch_norms)
    run = run_with(model, source, toy_config, tmp_path, pictures)
    assert main(run.build_arguments("--source", source)) == 0
    before, after = scales(model), scales(onnx.load(str(tmp_path / CALIBRATED)))
    folded = {n.input[1].replace(".bn.", ".conv.") for n in model.graph.node if n.op_type == "BatchNormalization"}
    assert len(folded) > 2
    kept = [name for name in before.keys() & after.keys() if name not in folded]
    assert all(np.array_equal(before[name], after[name]) for name in kept)
    assert len(kept) >= len(before) - len(folded) - 3, "a folded layer without a ReLU is quantized under another name"
    assert verify(run.verify_arguments()) == 0


def two_heads_of_one_weight(model: onnx.ModelProto) -> None:
    """Both strides' score branches read the weights of one, as heads that share them do."""
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = name.replace("det_rear.score_s16.predict.", "det_rear.score_s8.predict.")
    for entry in list(model.graph.initializer):
        if entry.name.startswith("det_rear.score_s16.predict."):
            model.graph.initializer.remove(entry)


def test_a_weight_that_two_convolutions_share(toy_config: Path, pictures: Path, tmp_path: Path) -> None:
    model = toy_network(quantized=False, batch_norms=r"(?!.*predict)")
    two_heads_of_one_weight(model)
    run = run_with(model, "with-bn", toy_config, tmp_path, pictures)
    assert main(run.build_arguments("--source", "with-bn", "--calib-images", str(pictures))) == 0
    assert verify(run.verify_arguments()) == 0


def insert_batch_norm(model: onnx.ModelProto, tensor: str, name: str) -> None:
    """Behind a tensor that is no convolution's bare result; all that read it read the batch norm's."""
    (node,) = (node for node in model.graph.node if tensor in node.output)
    for reader in model.graph.node:
        for index, read in enumerate(reader.input):
            if read == tensor:
                reader.input[index] = f"/{name}/BatchNormalization_output_0"
    weight = next(entry for entry in model.graph.initializer if entry.name == "backbone.last.conv.weight")
    rng, channels = np.random.default_rng(8), weight.dims[0]
    parts = ("weight", "bias", "running_mean", "running_var")
    for part in parts:
        value = rng.uniform(0.5, 1.5, channels).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, f"{name}.bn.{part}"))
    inputs = [tensor, *(f"{name}.bn.{part}" for part in parts)]
    added = onnx.helper.make_node("BatchNormalization", inputs, [f"/{name}/BatchNormalization_output_0"], name)
    model.graph.node.insert(list(model.graph.node).index(node) + 1, added)


def test_a_batch_norm_behind_a_relu(toy_config: Path, pictures: Path, tmp_path: Path) -> None:
    model = toy_network(quantized=False, batch_norms=ALL)
    insert_batch_norm(model, "/backbone/last/Relu_output_0", "backbone.late")
    run = run_with(model, "with-bn", toy_config, tmp_path, pictures)
    assert main(run.build_arguments("--source", "with-bn", "--calib-images", str(pictures))) == 0
    assert verify(run.verify_arguments()) == 0
    assert "backbone.late.bn" in {layer["name"] for layer in json.loads(run.file(".json").read_text())["layers"]}


def no_pictures(run: Run) -> list[str]:
    return []


def no_folder(run: Run) -> list[str]:
    return ["--calib-images", str(run.folder / "nowhere")]


def empty_folder(run: Run) -> list[str]:
    (run.folder / "empty").mkdir()
    return ["--calib-images", str(run.folder / "empty")]


def damaged_picture(run: Run) -> list[str]:
    folder = run.folder / "calib"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), random_picture((144, 192), 1)[0])
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:-50])
    return ["--calib-images", str(folder)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (no_pictures, r"\d+ tensors carry no scale \(a float-trained model\); give pictures .* --calib-images DIR"),
        (no_folder, r"--calib-images: .*nowhere: no such file"),
        (empty_folder, r".*empty: no pictures in this folder"),
        (damaged_picture, r"--calib-images: .*b\.png: the PNG is cut short"),
    ],
)
def test_missing_pictures_are_explained(
    float_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Run], list[str]],
    message: str,
) -> None:
    shutil.copy(float_run.folder / "with-bn-export-last.onnx", tmp_path)
    run = Run(float_run.config, tmp_path, float_run.pictures)
    assert main(run.build_arguments("--source", "with-bn", *arguments(run))) == 2
    error = capsys.readouterr().err
    assert re.match(rf"error: {message}", error), error
    assert "Traceback" not in error
    assert not (tmp_path / CALIBRATED).exists()


@pytest.mark.parametrize(
    ("patterns", "batch_norms", "message"),
    [
        ("{1: ['backbone.', 'nek.'], 2: ['det_', 'seg_', 'neck.']}", ALL, r"fusion_bn_patterns\.1: 'nek\.' matches no"),
        ("{1: ['backbone.'], 2: ['det_', 'seg_']}", ALL, r"fusion_bn_patterns: no pattern matches neck\.reduction\.bn"),
        (
            "{1: ['backbone.', 'neck.'], 2: ['det_', 'seg_', 'neck.r']}",
            ALL,
            r"fusion_bn_patterns\.2: neck\.reduction\.bn is matched by 'neck\.r' and by 'neck\.' of step 1",
        ),
    ],
)
def test_patterns_that_do_not_fit_are_explained(
    toy_config: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    patterns: str,
    batch_norms: str,
    message: str,
) -> None:
    config = Path(shutil.copytree(toy_config.parent, tmp_path / "config")) / toy_config.name
    with config.open("a") as file:
        file.write(f"fusion_bn_patterns = {patterns}\n")
    run = run_with(toy_network(batch_norms=batch_norms), "with-bn", config, tmp_path, pictures)
    assert main(run.build_arguments("--source", "with-bn")) == 2
    error = capsys.readouterr().err
    assert re.match(rf"error: {re.escape(str(config))}: {message}", error), error
    assert "Traceback" not in error


def test_a_batch_norm_of_step_1_is_none_of_step_2s_export(
    toy_config: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 1's export has absorbed the shared part: one that has not is told by the first name."""
    run = run_with(toy_network(batch_norms=ALL), "fusion-bn-c1", toy_config, tmp_path, pictures)
    assert main(run.build_arguments("--source", "fusion-bn-c1")) == 2
    assert "fusion_bn_patterns: no pattern matches backbone." in capsys.readouterr().err
