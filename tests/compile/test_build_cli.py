"""`python -m compile.build`: the files it writes, from what it can build, and that every mistake is explained."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm

from compile.build import main
from compile.errors import CompileError
from compile.files import load_pair, pair_of, save_pair
from compile.importer import import_onnx
from compile.importer import main as import_main
from compile.package import ATTRIBUTE
from compile.targets import find_target
from runtime.artifact import Manifest, file_sha256
from tests.compile.models import run_onnx
from tests.compile.toy import HEADS, Run, toy_network

SUFFIXES = ("-symbol.json", "-0000.params", ".so", ".json")


def test_the_four_files_and_nothing_else(built: Run) -> None:
    found = {path.name for path in built.folder.iterdir()}
    assert found == {built.step_2.name, *(built.file(suffix).name for suffix in SUFFIXES)}


def test_the_manifest_tells_what_was_built(built: Run) -> None:
    manifest = Manifest.load(built.file(".json"))
    assert manifest.library_sha256 == file_sha256(built.file(".so"))
    sources = (built.step_2, *pair_of(built.prefix))
    assert manifest.sources == {path.name: file_sha256(path) for path in sources}
    names = [output.name for output in manifest.outputs]
    assert names == [*HEADS, "det_rear.boxes", "det_rear.packed", "seg_lane.mask"]
    assert {output.name: output.shift for output in manifest.outputs if output.role == "head"} == dict(
        zip(HEADS, (4, 5, 4, 5, 4), strict=True)
    )
    kinds = {layer["kind"] for layer in manifest.layers}
    assert kinds == {
        "quantize_pixels",
        "conv_layer",
        "add_layer",
        "upsample2x",
        "concat_layer",
        "average_pool",
        "channel_argmax",
        "flatten_maps",
    }
    certified = {bound["name"] for bound in manifest.certificate}
    summing = ("conv_layer", "add_layer", "concat_layer", "average_pool")
    assert certified == {layer["name"] for layer in manifest.layers if layer["kind"] in summing}
    assert all(bound["float_bound"] < 2**24 and bound["aligned_bound"] < 2**31 for bound in manifest.certificate)


def test_the_heads_equal_step_2(built: Run, picture: np.ndarray) -> None:
    got, expected = built.outputs(picture), run_onnx(onnx.load(str(built.step_2)), picture)
    for name, shift in zip(HEADS, (4, 5, 4, 5, 4), strict=True):
        assert np.array_equal(got[name], np.ldexp(expected[name].transpose(0, 2, 3, 1), shift)), name


def test_building_twice_gives_the_same_bytes(built: Run, tmp_path: Path) -> None:
    again = Run(built.config, tmp_path, built.pictures)
    shutil.copy(built.step_2, again.step_2)
    assert main(again.build_arguments()) == 0
    for suffix in ("-symbol.json", "-0000.params"):
        assert again.file(suffix).read_bytes() == built.file(suffix).read_bytes()


def test_the_pair_alone_is_enough(
    built: Run, tmp_path: Path, picture: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = Run(built.config, tmp_path, built.pictures)
    for path in pair_of(built.prefix):
        shutil.copy(path, tmp_path)
    target, processor = ("x86-64", "x86-64") if platform.machine() == "x86_64" else ("native", "")
    assert main(alone.build_arguments("--source", "int-inference", "--target", target)) == 0
    printed = capsys.readouterr().out
    assert f"layers for {processor}" in printed
    bounds = Manifest.load(built.file(".json")).certificate
    largest = max(bound["float_bound"] for bound in bounds)
    assert f"certificate: {len(bounds)} layers proven exact; the largest sum is {largest} of 2^24" in printed
    expected = built.outputs(picture)
    for name, value in alone.outputs(picture).items():
        assert np.array_equal(value, expected[name]), name
    assert Manifest.load(alone.file(".json")).sources == Manifest.load(built.file(".json")).sources


def test_no_integer_parameter_names_are_invented(built: Run) -> None:
    """Every parameter is step 2's, or a table of a detection."""
    dotted = {name.rsplit(".", 1)[0] for name in import_onnx(onnx.load(str(built.step_2))).parameters}
    _, parameters = load_pair(built.prefix)
    assert {name.rsplit(".", 1)[0] for name in parameters} == dotted | {"det_rear"}
    assert {name for name in parameters if name.startswith("det_rear.") and name.count(".") == 1} == {
        "det_rear.exp_table",
        "det_rear.anchors",
        "det_rear.levels",
    }


def no_onnx(run: Run) -> None:
    run.step_2.unlink()


def damaged_onnx(run: Run) -> None:
    run.step_2.write_bytes(run.step_2.read_bytes()[:3000])


def wrong_size(run: Run) -> None:
    onnx.save(toy_network(hw=(72, 112)), str(run.step_2))


def free_size(run: Run) -> None:
    model = onnx.load(str(run.step_2))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, str(run.step_2))


def two_inputs(run: Run) -> None:
    model = onnx.load(str(run.step_2))
    model.graph.input.append(onnx.helper.make_tensor_value_info("depth", onnx.TensorProto.FLOAT, (1, 1)))
    onnx.save(model, str(run.step_2))


def output_missing(run: Run) -> None:
    model = onnx.load(str(run.step_2))
    del model.graph.output[0]
    onnx.save(model, str(run.step_2))


def foreign_output(run: Run) -> None:
    model = onnx.load(str(run.step_2))
    model.graph.node.append(onnx.helper.make_node("Identity", ["seg_lane.logits"], ["seg_road.logits"]))
    entry = onnx.ValueInfoProto()
    entry.CopyFrom(model.graph.output[-1])
    entry.name = "seg_road.logits"
    model.graph.output.append(entry)
    onnx.save(model, str(run.step_2))


def unequal_score_shifts(run: Run) -> None:
    model = onnx.load(str(run.step_2))
    place = "/det_rear/score_s16/quantizer/scale/Constant_output_0"
    (node,) = (node for node in model.graph.node if node.output[0] == place)
    node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.25)))
    onnx.save(model, str(run.step_2))


def still_float(run: Run) -> None:
    onnx.save(toy_network(quantized=False), str(run.step_2))


def batch_norm_left(run: Run) -> None:
    onnx.save(toy_network(batch_norms="backbone.stem"), str(run.step_2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_onnx, r"fusion-bn-c2-export-last\.onnx: no such file; .*train\.train"),
        (damaged_onnx, r"fusion-bn-c2-export-last\.onnx: not a valid ONNX model"),
        (wrong_size, r"fusion-bn-c2-export-last\.onnx: its input is \(1, 3, 72, 112\), .* \(1, 3, 72, 104\)"),
        (free_size, r"fusion-bn-c2-export-last\.onnx: its inputs are image, .*fixed size"),
        (two_inputs, r"fusion-bn-c2-export-last\.onnx: its inputs are image, depth, .*one input image"),
        (output_missing, r"no output det_rear\.score_s8; build with the config"),
        (foreign_output, r"output seg_road\.logits belongs to no task of the config"),
        (unequal_score_shifts, r"det_rear\.score_s8: the maps of all strides need one shift, .*score_s16': 2"),
        (still_float, r"backbone\.stem\.conv\.weight: a float weight"),
        (batch_norm_left, r"backbone\.stem\.bn\.weight: relax\.nn\.batch_norm has no integer form"),
    ],
)
def test_a_step_2_that_cannot_be_built_is_explained(
    copy: Run, capsys: pytest.CaptureFixture[str], spoil: Callable[[Run], None], message: str
) -> None:
    spoil(copy)
    assert main(copy.build_arguments()) == 2
    refused(capsys, message)


@pytest.mark.parametrize(
    ("file", "addition", "message"),
    [
        (
            "det_rear.py",
            'head = {**head, "anchors": [[(14.0, 20.5)]] * 2}',
            r"det_rear\.score_s8: the model returns 4 channels, the config's anchors and classes make 2",
        ),
        (
            "det_rear.py",
            'classes = [*classes, {"name": "more", "color": (1, 2, 3)}]',
            r"det_rear\.score_s8: the model returns 4 channels, the config's anchors and classes make 6",
        ),
        (
            "seg_lane.py",
            'classes = classes[:-1]\nloss = {"kind": "cross_entropy"}',
            r"seg_lane\.logits: the model returns 4 channels, the config's anchors and classes make 3",
        ),
    ],
)
def test_another_config_is_refused(
    copy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, addition: str, message: str
) -> None:
    assert main(copy.with_config(tmp_path / "other", file, addition).build_arguments()) == 2
    refused(capsys, message)


def test_a_linker_that_fails_is_named(
    copy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "broken-g++"
    compiler.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    before = copy.file(".so").read_bytes()
    assert main(copy.build_arguments()) == 2
    refused(capsys, r"int-inference-export-last\.so: .*broken-g\+\+ cannot link it: .*no space left")
    assert copy.file(".so").read_bytes() == before
    assert not list(copy.folder.glob("partial-*"))


def refused(capsys: pytest.CaptureFixture[str], message: str) -> None:
    error = capsys.readouterr().err
    assert re.match(rf"error: .*{message}", error), error
    assert "Traceback" not in error
    assert error.count("\n") == 1


def no_symbol(run: Run) -> None:
    run.file("-symbol.json").unlink()


def cut_params(run: Run) -> None:
    run.file("-0000.params").write_bytes(run.file("-0000.params").read_bytes()[:-5])


def foreign_symbol(run: Run) -> None:
    """Step 2's own pair is a module, but no integer one."""
    assert import_main([str(run.step_2)]) == 0
    for suffix in ("-symbol.json", "-0000.params"):
        run.step_2.with_name(f"{run.step_2.stem}{suffix}").replace(run.file(suffix))


def damaged_description(run: Run) -> None:
    module, parameters = load_pair(run.prefix)
    functions = dict(module.functions.items())
    functions[module.get_global_var("main")] = module["main"].with_attr(ATTRIBUTE, '{"input": {}')
    save_pair(run.prefix, tvm.IRModule(functions), parameters)


def over_the_bound(run: Run) -> None:
    run.change_parameter("neck.reduction.conv.bias", (1,), 1 << 24)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_symbol, r"int-inference-export-last-symbol\.json: no such file"),
        (cut_params, r"int-inference-export-last-0000\.params: truncated"),
        (foreign_symbol, r"int-inference-export-last-symbol\.json: no int-inference module"),
        (damaged_description, r"int-inference-export-last-symbol\.json: its description is damaged"),
        (over_the_bound, r"layer neck\.reduction\.conv \(conv\), channel 1: sums reach \d+, the limit is 2\^24"),
    ],
)
def test_a_pair_that_cannot_be_built_is_explained(
    copy: Run, capsys: pytest.CaptureFixture[str], spoil: Callable[[Run], None], message: str
) -> None:
    spoil(copy)
    capsys.readouterr()
    assert main(copy.build_arguments("--source", "int-inference")) == 2
    refused(capsys, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--config": "nowhere.py"}, r"nowhere\.py: no such config file"),
        ({"--out": "nowhere"}, r"nowhere/fusion-bn-c2-export-last\.onnx: no such file"),
        ({"--dump": "a file"}, r".*Not a directory: .*a file"),
    ],
)
def test_wrong_arguments_are_explained(
    built: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], message: str
) -> None:
    (tmp_path / "a file").touch()
    given = {"--config": built.config, "--out": built.folder}
    given |= {option: tmp_path / value for option, value in changes.items()}
    assert main([str(part) for pair in given.items() for part in pair]) == 2
    refused(capsys, message)


@pytest.mark.parametrize(("option", "value"), [("--target", "abacus"), ("--source", "with-bm")])
def test_unknown_choices_are_explained(built: Run, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(built.build_arguments(option, value))
    assert stop.value.code == 2
    assert re.search(rf"argument {option}: invalid choice: '{value}' \(choose from ", capsys.readouterr().err)


def test_unknown_targets_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CompileError, match=r"--target abacus: unknown; use one of native, .*plain"):
        find_target("abacus")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(
        CompileError, match=r"--target avx2: for x86_64 processors, this machine is aarch64; use native"
    ):
        find_target("avx2")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, r"no C\+\+ compiler \(g\+\+ or clang\+\+\) on the PATH; install one"),
        ({"CXX": "/nowhere/g++"}, r"no C\+\+ compiler .* at /nowhere/g\+\+, which CXX or CC names; install one"),
    ],
)
def test_a_missing_compiler_is_named_before_any_work(
    copy: Run, repository: Path, variables: dict[str, str], message: str
) -> None:
    """The command itself, in a process without a PATH."""
    before = {path.name: path.stat().st_mtime_ns for path in copy.folder.iterdir()}
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC")}
    process = subprocess.run(
        [sys.executable, "-m", "compile.build", *copy.build_arguments()],
        cwd=repository,
        env=environment | {"PATH": str(copy.folder)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert re.match(rf"error: {message}", process.stderr), process.stderr
    assert "Traceback" not in process.stderr
    assert {path.name: path.stat().st_mtime_ns for path in copy.folder.iterdir()} == before
