"""ONNX to Relax: names survive, foreign operators and damaged files are refused, equal files give equal bytes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
import tvm_ffi
from tvm import relax

from compile.errors import CompileError
from compile.files import load_pair, pair_of
from compile.importer import ImportedModel, import_onnx, main, read_onnx
from compile.rewrite import bindings_of, operator_name
from tests.compile.engines import TARGET, tensors
from tests.compile.models import NO_BATCH_NORM, ModelBuilder, float_image, random_picture, run_onnx
from tests.compile.toy import ALL, HEADS, HW, toy_network

# The operators of a Relax binding that stands for a node; a convolution with a bias ends in its addition.
OPERATORS = {
    "Conv": {"relax.nn.conv2d", "relax.add"},
    "BatchNormalization": {""},
    "Relu": {"relax.nn.relu"},
    "Add": {"relax.add"},
    "Resize": {"relax.image.resize2d"},
    "Slice": {"relax.strided_slice"},
    "Concat": {"relax.concat"},
    "AveragePool": {"relax.nn.avg_pool2d"},
    "QuantizeLinear": {"relax.quantize"},
}


@pytest.fixture(scope="module", params=["step 2", "with batch norms"])
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return toy_network() if request.param == "step 2" else toy_network(batch_norms=ALL)


@pytest.fixture(scope="module")
def imported(model: onnx.ModelProto) -> ImportedModel:
    return import_onnx(model)


def test_weights_keep_their_dotted_names(model: onnx.ModelProto, imported: ImportedModel) -> None:
    values = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    assert any(name.startswith("neck.reduction.conv.") for name in values)
    assert imported.parameters.keys() == values.keys()
    assert all(np.array_equal(imported.parameters[name], value) for name, value in values.items())
    assert {var.name for var in imported.module["main"].params} == {"image", *values}


def test_tensors_keep_their_names(model: onnx.ModelProto, imported: ImportedModel) -> None:
    operators = {binding.var.name: operator_name(binding.value) for binding in bindings_of(imported.module["main"])}
    seen = set()
    for node in model.graph.node:
        if node.op_type not in ("Constant", "DequantizeLinear"):
            assert operators[node.output[0]] in OPERATORS[node.op_type], node.output[0]
            seen.add(node.op_type)
    assert seen >= OPERATORS.keys() - {"BatchNormalization"}


def test_outputs_keep_their_names_and_order(imported: ImportedModel) -> None:
    assert imported.output_names == HEADS


def test_the_import_computes_what_the_onnx_does() -> None:
    """TVM runs the Q/DQ graph in float; step 2's sums are exact, so the bits are those of ONNX Runtime."""
    model = toy_network()
    imported = import_onnx(model)
    executable = tvm.compile(imported.module, TARGET.llvm())
    machine = relax.VirtualMachine(executable, tvm.cpu())
    picture = random_picture(HW, 1)
    weights = [imported.parameters[var.name] for var in imported.module["main"].params[1:]]
    outputs = machine["main"](*tensors([float_image(picture), *weights]))
    for output, (name, expected) in zip(outputs, run_onnx(model, picture).items(), strict=True):
        assert np.array_equal(output.numpy(), expected), name


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path


def foreign_model(name: str) -> onnx.ModelProto:
    b = ModelBuilder((8, 8))
    x = b.node("Sigmoid", [b.unit("stem", b.image(), 4, shift=4)], "head.activation")
    b.nodes[-1].name = name
    return b.finish({"out": x})


@pytest.mark.parametrize("batch_norms", [NO_BATCH_NORM, ALL])
def test_weights_written_as_constants_are_weights_all_the_same(batch_norms: str) -> None:
    model = toy_network(batch_norms=batch_norms)
    expected = import_onnx(model)
    for entry in model.graph.initializer:
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [entry.name], value=entry))
    del model.graph.initializer[:]
    imported = import_onnx(model)
    assert imported.parameters.keys() == expected.parameters.keys()
    assert all(np.array_equal(imported.parameters[name], value) for name, value in expected.parameters.items())
    assert len(bindings_of(imported.module["main"])) == len(bindings_of(expected.module["main"]))


@pytest.mark.parametrize(("name", "shown"), [("/head/Sigmoid", "/head/Sigmoid"), ("", "out")])
def test_a_foreign_operator_is_refused_by_its_node(tmp_path: Path, name: str, shown: str) -> None:
    path = saved(foreign_model(name), tmp_path / "a.onnx")
    with pytest.raises(CompileError, match=rf"a\.onnx: node {shown} is a Sigmoid, .*; export a model of Add, "):
        read_onnx(path)


@pytest.mark.parametrize("kinds", [("Relu",), ("Relu", "Relu"), ("Identity", "Add")])
def test_what_holds_no_convolution_is_refused(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    b = ModelBuilder(HW, seed=0)
    x = b.image()
    for number, kind in enumerate(kinds):
        x = b.node(kind, [x, x] if kind == "Add" else [x], f"layer.{number}")
    path = saved(b.finish({"out": x}), tmp_path / "a.onnx")
    with pytest.raises(CompileError, match=rf"a\.onnx: no network, its nodes are .*{', '.join(kinds)}; export it"):
        read_onnx(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"a\.onnx: no such file; .*train\.train"):
        read_onnx(tmp_path / "a.onnx")
    with pytest.raises(CompileError, match="no such file"):
        read_onnx(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 100, 5000, -1000, -1])
def test_a_damaged_file_is_refused(tmp_path: Path, length: int) -> None:
    content = toy_network().SerializeToString()
    (tmp_path / "a.onnx").write_bytes(content[:length])
    with pytest.raises(CompileError, match=r"a\.onnx: not a valid ONNX model \(.+\); export it again"):
        read_onnx(tmp_path / "a.onnx")


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("import torch\n")
    with pytest.raises(CompileError, match="not a valid ONNX model"):
        read_onnx(tmp_path / "a.onnx")


def test_the_command_writes_the_pair_twice_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = toy_network()
    contents = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = saved(model, tmp_path / folder / "fusion-bn-c2-export-last.onnx")
        assert main([str(path)]) == 0
        prefix = path.with_suffix("")
        assert all(str(part) in capsys.readouterr().out for part in pair_of(prefix)[:1])
        contents.append([part.read_bytes() for part in pair_of(prefix)])
        assert len(list(path.parent.iterdir())) == 3
    assert contents[0] == contents[1]
    module, parameters = load_pair(prefix)
    expected = import_onnx(model)
    assert tvm_ffi.structural_equal(module, expected.module)
    assert all(np.array_equal(parameters[name], value) for name, value in expected.parameters.items())


def test_the_command_explains_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "a.onnx")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'a.onnx'}: no such file")
    assert "Traceback" not in error
