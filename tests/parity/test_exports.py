"""What the exports of steps 0 to 2 and the integer module hold, read from their graphs."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
from tvm import relax, tirx

from compile.certify import layer_calls
from compile.files import Parameters
from compile.importer import import_onnx, read_onnx
from compile.layers import ConvLayer, QuantizePixels
from compile.pipeline import to_integer_module
from compile.rewrite import shape_of
from configs import load
from configs.schema import PREFIXES, Config
from quant.fake import QuantConv2d
from tests.parity.parts import pictures
from tests.parity.steps import export, first_step, next_step
from train.models.multitask import MultiTaskNetwork

POST_PROCESSING = {"ArgMax", "NonMaxSuppression", "TopK", "Sigmoid", "Softmax", "Exp", "Where", "Greater", "Gather"}
SHARED = {"backbone", "neck"}
Integer = tuple[tvm.IRModule, Parameters]


@pytest.fixture(scope="module")
def config(repository: Path) -> Config:
    return load(repository / "configs/4pe_resize/multitask.py")


@pytest.fixture(scope="module")
def exports(config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The ONNX files of all three steps, by prefix."""
    folder, sample = tmp_path_factory.mktemp("exports"), pictures((128, 192), 1)[0]
    steps = [first_step(config, 0, sample)]
    for _ in range(2):
        steps.append(next_step(steps[-1], sample))
    return {prepared.prefix: export(prepared, folder) for prepared in steps}


@pytest.fixture(scope="module")
def integer(exports: dict[str, Path], config: Config) -> Integer:
    imported = import_onnx(read_onnx(exports["fusion-bn-c2"]))
    module, parameters, *_ = to_integer_module(imported, config.deployment()["tasks"])
    return module, parameters


def batch_norm_parts(path: Path) -> set[str]:
    """The parts of the network that have a batch norm, by the names of the parameters."""
    nodes = onnx.load(path).graph.node
    return {node.input[1].split(".")[0] for node in nodes if node.op_type == "BatchNormalization"}


def test_each_step_has_the_batch_norms_that_it_has_not_absorbed(exports: dict[str, Path], config: Config) -> None:
    heads = {task.name for task in config.tasks}
    parts = {prefix: batch_norm_parts(path) for prefix, path in exports.items()}
    assert parts == {"with-bn": SHARED | heads, "fusion-bn-c1": heads, "fusion-bn-c2": set()}


@pytest.mark.parametrize("prefix", PREFIXES[:3])
def test_an_export_is_a_valid_model_that_ends_at_the_heads(
    exports: dict[str, Path], config: Config, prefix: str
) -> None:
    onnx.checker.check_model(str(exports[prefix]), full_check=True)
    graph = onnx.load(exports[prefix]).graph
    assert POST_PROCESSING.isdisjoint(node.op_type for node in graph.node)
    assert tuple(output.name for output in graph.output) == config.output_names
    assert {node.domain for node in graph.node} == {""}
    assert [entry.name for entry in graph.input] == ["image"]


@pytest.mark.parametrize("prefix", PREFIXES[:3])
def test_a_convolution_is_exported_once(exports: dict[str, Path], config: Config, prefix: str) -> None:
    nodes = onnx.load(exports[prefix]).graph.node
    units = [module for module in MultiTaskNetwork(config).modules() if isinstance(module, QuantConv2d)]
    assert sum(node.op_type == "Conv" for node in nodes) == len(units)


def test_all_tasks_hang_on_one_shared_part(integer: Integer, config: Config) -> None:
    module, _ = integer
    calls = list(layer_calls(module))
    units = {f"{unit.name}.conv" for unit in MultiTaskNetwork(config).modules() if isinstance(unit, QuantConv2d)}
    convolutions = [call.name for call in calls if isinstance(call.layer, ConvLayer)]
    assert sorted(convolutions) == sorted(units), "every convolution is there, and once"
    assert sum(isinstance(call.layer, QuantizePixels) for call in calls) == 1
    backbone = {name for name in convolutions if name.split(".")[0] == "backbone"}
    inputs = {call.name: [str(argument.name) for argument in call.arguments] for call in calls}
    for task in config.tasks:
        behind = ancestors(inputs, [name for name in inputs if name.split(".")[0] == task.name])
        strangers = {entry.name for entry in config.tasks} - {task.name}
        assert not {name.split(".")[0] for name in behind} & strangers
        assert backbone < behind


def ancestors(inputs: dict[str, list[str]], start: list[str]) -> set[str]:
    """The layers that these depend on, themselves included."""
    found, open_ones = set(start), list(start)
    while open_ones:
        new = [name for name in inputs[open_ones.pop()] if name in inputs and name not in found]
        found.update(new)
        open_ones += new
    return found


def test_size_of_what_ships(integer: Integer, config: Config) -> None:
    module, parameters = integer
    weights = operations = 0
    for call in layer_calls(module):
        if isinstance(call.layer, ConvLayer):
            weight, bias = (parameters[argument.name] for argument in call.arguments[1:3])
            _, height, width, _ = shape_of(call.var)
            weights += weight.size + bias.size
            operations += weight.size * height * width
    assert config.input_hw == (448, 960)
    assert 1.4e6 < weights < 2.2e6
    assert 2.4e9 < operations < 3.2e9


def test_no_tensor_of_the_integer_module_is_float(integer: Integer) -> None:
    module, parameters = integer
    assert {value.dtype for value in parameters.values()} == {np.dtype(np.int8), np.dtype(np.int32)}
    for var, function in module.functions.items():
        if isinstance(function, tirx.PrimFunc):
            assert "float" not in function.script(), var
            continue
        tensors: list[relax.Expr] = list(function.params)
        relax.analysis.post_order_visit(function, tensors.append)
        kinds = {str(expr.ty.dtype) for expr in tensors if isinstance(expr.ty, relax.TensorType)}
        assert "int8" in kinds, var
        assert kinds <= {"int8", "uint8", "int32", "int64"}, var
