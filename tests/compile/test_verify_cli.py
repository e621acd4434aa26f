"""`python -m compile.verify`: equality is found, every planted fault is found and named, every mistake explained."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compile.build import main as build
from compile.certify import layer_calls
from compile.files import load_pair
from compile.layers import ConvLayer
from compile.verify import Verifier, main
from compile.witness import Witness
from runtime.artifact import Manifest
from tests.compile.models import random_picture, run_onnx
from tests.compile.toy import DEAD_CHANNEL, HW, Run, toy_network

FAULTS = 20


def verified(run: Run, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit code and what the JSON says."""
    file = run.folder / "verify.json"
    code = main(run.verify_arguments("--json", str(file), *more))
    return code, json.loads(file.read_text())


def tensor_of_layer(run: Run) -> dict[str, str]:
    """Step 2's tensor for every layer that has one."""
    layers = Manifest.load(run.file(".json")).layers
    return {layer["name"]: layer["tensor"] for layer in layers if layer["tensor"]}


def rebuilt(run: Run) -> None:
    assert build(run.build_arguments("--source", "int-inference")) == 0


def test_step_3_equals_step_2(copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = verified(copy)
    assert code == 0
    manifest = Manifest.load(copy.file(".json"))
    assert [entry["name"] for entry in result["outputs"]] == [output.name for output in manifest.outputs]
    for entry, output in zip(result["outputs"], manifest.outputs, strict=True):
        assert entry["elements"] == 2 * np.prod(output.shape), "every element, on both pictures"
        assert (entry["mismatches"], entry["largest_difference"], entry["first_differing_layer"]) == (0, 0, None)
    assert (result["equal"], result["mismatches"], result["pictures"], result["problems"]) == (True, 0, 2, [])
    assert result["layers"] == {
        "compared": sum(layer["tensor"] is not None and layer["storage"] is not None for layer in manifest.layers),
        "differing": [],
    }
    inside = [layer["kind"] for layer in manifest.layers if layer["storage"] is None]
    assert inside == ["upsample2x"], "a copy, which the sum that reads it makes on the way"
    assert result["layers"]["compared"] == len(manifest.layers) - 4, "and all but what stands behind the heads"
    assert result["milliseconds"].keys() == {"step 2", "step 3"}
    assert all(value > 0 for value in result["milliseconds"].values())
    assert "disable_quant_qdq" in result["witness"]
    assert result["target"] == manifest.target
    printed = capsys.readouterr().out
    assert all(output.name in printed for output in manifest.outputs)
    assert "step 3 equals step 2: 0 mismatches on 2 pictures" in printed


def test_the_comparison_is_of_values_that_vary(built: Run) -> None:
    """Saturated and unsaturated, boxes found and suppressed; or equality would say little."""
    outputs = built.outputs(random_picture(HW, 3), (72, 96))
    assert (outputs["det_rear.boxes"][:, 5] >= 0).sum() > 3
    assert len(np.unique(outputs["seg_lane.mask"])) > 2
    witness = Witness(built.step_2, tensors=list(tensor_of_layer(built).values()))
    values = np.concatenate([v.ravel() for v in witness.run(random_picture(HW, 3)).values() if v.dtype == np.int8])
    assert (values == 127).sum() > 100
    assert (values == -128).sum() > 100
    assert len(np.unique(values)) == 256


@pytest.fixture(scope="module")
def faults(built: Run) -> list[tuple[str, tuple[int, ...], int]]:
    """Random weights of random convolutions, of channels whose output varies: parameter, place, ±32."""
    module, parameters = load_pair(built.prefix)
    names = sorted(call.name for call in layer_calls(module) if isinstance(call.layer, ConvLayer))
    tensors = tensor_of_layer(built)
    values = Witness(built.step_2, tensors=list(tensors.values())).run(random_picture(HW, 4))
    rng = np.random.default_rng(7)
    chosen = []
    for name in rng.choice(names, FAULTS):
        weight, output = parameters[f"{name}.weight"], values[tensors[name]].astype(int)
        channel = rng.choice(np.flatnonzero(np.ptp(output, axis=(0, 1, 2)) > 0))
        place = (int(channel), *(int(rng.integers(size)) for size in weight.shape[1:]))
        chosen.append((f"{name}.weight", place, 32 if weight[place] < 95 else -32))
    return chosen


@pytest.mark.parametrize("index", range(FAULTS))
def test_a_planted_fault_is_found_and_its_layer_named(
    copy: Run, faults: list[tuple[str, tuple[int, ...], int]], index: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name, place, by = faults[index]
    copy.change_parameter(name, place, by)
    rebuilt(copy)
    assert f"{name} differs from the source" in capsys.readouterr().out
    code, result = verified(copy)
    assert code == 1
    assert not result["equal"]
    layer = name.removesuffix(".weight")
    assert result["layers"]["differing"][0] == layer
    wrong = [entry for entry in result["outputs"] if entry["mismatches"]]
    assert all(entry["first_differing_layer"] == layer for entry in wrong)
    assert f"first differing layer: {layer}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("backbone.block.second.conv.weight", (3, 0, 0, DEAD_CHANNEL)),
        ("backbone.block.first.conv.weight", (DEAD_CHANNEL, 1, 1, 2)),
    ],
    ids=["times a constant 0", "of a channel that is constant"],
)
def test_a_fault_that_reaches_no_output_is_told_by_its_hash(
    copy: Run, name: str, place: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _, parameters = load_pair(copy.prefix)
    copy.change_parameter(name, place, 32 if parameters[name][place] < 95 else -32)
    rebuilt(copy)
    code, result = verified(copy)
    assert code == 1
    assert (result["mismatches"], result["layers"]["differing"], result["equal"]) == (0, [], False)
    (problem,) = result["problems"]
    assert re.search(rf"-0000\.params: {re.escape(name)}: its hash does not match the source fusion-bn-c2", problem)
    assert f"problem: {problem}" in capsys.readouterr().out


def test_a_fault_behind_the_heads_is_placed_there(copy: Run) -> None:
    copy.change_parameter("det_rear.anchors", (0, 1), 32)
    rebuilt(copy)
    code, result = verified(copy)
    assert code == 1
    assert result["layers"]["differing"] == []
    wrong = {entry["name"]: entry["first_differing_layer"] for entry in result["outputs"] if entry["mismatches"]}
    assert wrong == dict.fromkeys(("det_rear.boxes", "det_rear.packed"), "det_rear.post_processing")


def test_params_that_were_changed_but_not_built_are_told(copy: Run) -> None:
    copy.change_parameter("neck.reduction.conv.bias", (0,), 1)
    code, result = verified(copy)
    assert code == 1
    assert result["mismatches"] == 0
    assert len(result["problems"]) == 2
    assert "-0000.params: its hash does not match the source of the .so; build again" in result["problems"][0]
    assert "neck.reduction.conv.bias: its hash does not match the source fusion-bn-c2" in result["problems"][1]


def shortened(manifest: dict[str, Any]) -> None:
    kept = manifest["layers"].pop()["function"]
    manifest["layers"] = [layer for layer in manifest["layers"] if layer["function"] != kept]


def other_order(manifest: dict[str, Any]) -> None:
    manifest["layers"][4:6] = manifest["layers"][5:3:-1]


def lacking(manifest: dict[str, Any]) -> None:
    del manifest["layers"][3]["tensor"]


def other_geometry(manifest: dict[str, Any]) -> None:
    manifest["input"]["geometry"] = "another"


def other_scores(manifest: dict[str, Any]) -> None:
    manifest["tasks"][0]["sigmoid_table"][128] = 0.75


def better_bound(manifest: dict[str, Any]) -> None:
    manifest["certificate"][2]["float_bound"] = 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (shortened, "layers"),
        (other_order, "layers"),
        (lacking, "layers"),
        (other_geometry, "input"),
        (other_scores, "tasks"),
        (better_bound, "certificate"),
    ],
)
def test_a_manifest_that_was_changed_by_hand_is_told(
    copy: Run, change: Callable[[dict[str, Any]], None], key: str
) -> None:
    manifest = json.loads(copy.file(".json").read_text())
    change(manifest)
    copy.file(".json").write_text(json.dumps(manifest))
    code, result = verified(copy)
    assert code == 1
    assert [problem for problem in result["problems"] if f".json: its {key} is not what " in problem]


def another_producer(run: Run) -> None:
    model = onnx.load(str(run.step_2))
    model.producer_name = "somebody else"
    onnx.save(model, str(run.step_2))


def other_weights(run: Run) -> None:
    onnx.save(toy_network(seed=1), str(run.step_2))


@pytest.mark.parametrize(("change", "differs"), [(another_producer, False), (other_weights, True)])
def test_a_changed_onnx_is_told(copy: Run, change: Callable[[Run], None], differs: bool) -> None:
    change(copy)
    code, result = verified(copy)
    assert code == 1
    assert f"{copy.step_2}: its hash does not match the source of the .so; build again" in result["problems"]
    assert (result["mismatches"] > 0) == differs
    if differs:
        assert result["layers"]["differing"][0] == "backbone.stem.conv"


def test_step_2_must_not_depend_on_the_optimization_level(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Verifier.check_levels

    def one_level_off(self: Verifier, picture: np.ndarray, reference: dict[str, Any]) -> None:
        name = "seg_lane.logits"
        honest(self, picture, reference | {name: reference[name] + np.float32(2**-4)})

    monkeypatch.setattr(Verifier, "check_levels", one_level_off)
    code, result = verified(copy)
    assert code == 1
    assert [re.sub(r"\(.*\)", "", problem) for problem in result["problems"]] == 3 * [
        "step 2 itself: seg_lane.logits depends on the optimization level "
    ]


def test_an_unreadable_picture_among_others_is_a_problem(copy: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(copy.pictures, tmp_path / "mixed"))
    (folder / "broken.jpg").write_text("no picture")
    code, result = verified(Run(copy.config, copy.folder, folder))
    assert (code, result["pictures"], result["mismatches"]) == (1, 2, 0)
    assert "broken.jpg" in result["problems"][0]


def test_the_witness_is_onnx_runtime_turned_to_nhwc(built: Run) -> None:
    picture = random_picture(HW, 9)
    tensor = "/backbone/stem/quantizer/QuantizeLinear_output_0"
    values = Witness(built.step_2, tensors=[tensor, "no such tensor"]).run(picture)
    expected = run_onnx(onnx.load(str(built.step_2)), picture)
    assert values.keys() == {*expected, tensor}
    assert all(np.array_equal(values[name], value.transpose(0, 2, 3, 1)) for name, value in expected.items())
    assert (values[tensor].dtype, values[tensor].shape) == (np.int8, (1, 36, 52, 8))
