"""The Q/DQ graph before, the integer graph after: layers, settings, types, values."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
import tvm
from onnx import numpy_helper
from tvm import relax

from compile.certify import layer_calls
from compile.files import Parameters
from compile.layers import AddLayer, AveragePool, ConcatLayer, ConvLayer, QuantizePixels, Upsample2x
from compile.rewrite import bindings_of
from quant.arith import WEIGHT_MAX
from tests.compile.engines import integer_module, run_integer
from tests.compile.models import ModelBuilder, random_picture, run_onnx
from tests.compile.toy import HEADS, HW, toy_network

Array = np.ndarray
SMALL = (8, 10)
CONV = {"stride": 1, "padding": 1, "groups": 1, "relu": False}
POINTWISE = CONV | {"padding": 0}
LAYERS = {
    "image": QuantizePixels(),
    "backbone.stem.conv": ConvLayer(7, 5, **(CONV | {"stride": 2})),
    "backbone.down.grouped.conv": ConvLayer(5, 5, **(CONV | {"stride": 2, "groups": 2, "relu": True})),
    "backbone.down.pointwise.conv": ConvLayer(5, 5, **POINTWISE),
    "backbone.block.first.conv": ConvLayer(5, 6, **(CONV | {"groups": 3, "relu": True})),
    "backbone.block.second.conv": ConvLayer(6, 5, **(POINTWISE | {"relu": True}), residual_shift=5),
    "backbone.merge.a.conv": ConvLayer(5, 5, **(CONV | {"stride": 2})),
    "backbone.merge.b.conv": ConvLayer(5, 4, **(CONV | {"stride": 2})),
    "backbone.merge": AddLayer(5, 4, 5, relu=True),
    "backbone.last.conv": ConvLayer(5, 5, **(CONV | {"stride": 2, "relu": True})),
    "neck.reduction.conv": ConvLayer(5, 4, **POINTWISE),
    "neck.Slice_output_0": Upsample2x(9, 13, 4),
    "neck.sum": AddLayer(4, 5, 4, relu=True),
    "neck.pool": AveragePool(2, 2, 5, 5),
    "neck.joined": ConcatLayer((4, 5), 4),
}


@pytest.fixture(scope="module")
def toy() -> onnx.ModelProto:
    return toy_network()


@pytest.fixture(scope="module")
def integer(toy: onnx.ModelProto) -> tuple[tvm.IRModule, Parameters, dict[str, str]]:
    return integer_module(toy)


def test_layers_and_their_settings(integer: tuple[tvm.IRModule, Parameters, dict[str, str]]) -> None:
    layers = {call.name: call.layer for call in layer_calls(integer[0])}
    assert {name: layers[name] for name in LAYERS if name in layers} == LAYERS
    heads = layers.keys() - LAYERS.keys()
    assert len(heads) == 8
    assert all(type(layers[name]) is ConvLayer and name.startswith(("det_rear.", "seg_lane.")) for name in heads)


def variables(function: relax.Function) -> Iterator[relax.Var]:
    yield from function.params
    for block in function.body.blocks:
        yield from (binding.var for binding in block.bindings)


def types_within(ty: tvm.ir.Type) -> Iterator[str]:
    if isinstance(ty, relax.TupleType):
        for field in ty.fields:
            yield from types_within(field)
    elif isinstance(ty, relax.TensorType):
        yield str(ty.dtype)


def test_no_tensor_is_float(integer: tuple[tvm.IRModule, Parameters, dict[str, str]]) -> None:
    module, parameters, _ = integer
    functions = [function for function in module.functions.values() if isinstance(function, relax.Function)]
    assert len(functions) > 10
    types = {dtype for function in functions for var in variables(function) for dtype in types_within(var.ty)}
    assert types == {"uint8", "int8", "int32"}
    between = {str(binding.var.ty.dtype) for binding in bindings_of(module["main"])[:-1]}
    assert between == {"int8"}, "int32 stays within a layer"
    assert {str(value.dtype) for value in parameters.values()} == {"int8", "int32"}


def test_parameters_are_the_onnx_ones_as_integers(
    toy: onnx.ModelProto, integer: tuple[tvm.IRModule, Parameters, dict[str, str]]
) -> None:
    """Read back on their grids, weights and biases are the floats that the Q/DQ graph computes with."""
    module, parameters, _ = integer
    floats = {entry.name: numpy_helper.to_array(entry) for entry in toy.graph.initializer}
    convolutions = {call.name: call.layer for call in layer_calls(module) if isinstance(call.layer, ConvLayer)}
    assert parameters.keys() == {f"{c}.{part}" for c in convolutions for part in ("weight", "bias", "weight_shift")}
    for name, layer in convolutions.items():
        weight, bias, shift = (parameters[f"{name}.{part}"] for part in ("weight", "bias", "weight_shift"))
        assert (str(weight.dtype), str(bias.dtype), str(shift.dtype)) == ("int8", "int32", "int32")
        scaled = np.ldexp(floats[f"{name}.weight"].transpose(0, 2, 3, 1), shift[:, None, None, None])
        assert np.array_equal(weight, np.rint(scaled))
        assert np.abs(weight.astype(int)).max() <= WEIGHT_MAX
        expected = floats.get(f"{name}.bias", np.zeros(len(shift), np.float32))
        assert np.array_equal(np.ldexp(bias.astype(np.float64), -(layer.in_shift + shift)), expected)


def test_every_layer_names_its_tensor_of_step_2(
    toy: onnx.ModelProto, integer: tuple[tvm.IRModule, Parameters, dict[str, str]]
) -> None:
    module, _, tensor_of_layer = integer
    tensors = {name for node in toy.graph.node for name in node.output}
    names = [call.name for call in layer_calls(module)]
    assert len(set(names)) == len(names)
    assert tensor_of_layer.keys() == set(names)
    assert set(tensor_of_layer.values()) <= tensors
    assert len(set(tensor_of_layer.values())) == len(names)


def test_equal_layers_share_a_function() -> None:
    b = ModelBuilder(SMALL)
    first = b.unit("first", b.image(), 4, shift=5)
    second = b.unit("second", first, 4, shift=5)
    model = b.finish({"out": b.unit("wider", b.unit("third", second, 4, shift=5), 6, shift=5)})
    functions = {call.name: call.function for call in layer_calls(integer_module(model)[0])}
    assert functions["second.conv"] == functions["third.conv"]
    assert len(set(functions.values())) == len(functions) - 1


def test_the_heads_equal_those_of_onnx_runtime(
    toy: onnx.ModelProto, integer: tuple[tvm.IRModule, Parameters, dict[str, str]]
) -> None:
    module, parameters, _ = integer
    picture = random_picture(HW, 3)
    expected = run_onnx(toy, picture)
    assert tuple(expected) == HEADS
    shifts = (4, 5, 4, 5, 4)
    for got, name, shift in zip(run_integer(module, parameters, picture), HEADS, shifts, strict=True):
        assert np.array_equal(got, np.ldexp(expected[name].transpose(0, 2, 3, 1), shift)), name
        assert np.unique(got).size > 20, "a constant head says nothing"


Make = Callable[[ModelBuilder, str], list[str]]


def rescaled(b: ModelBuilder, x: str) -> list[str]:
    """A quantize of a quantized tensor is a concat of one."""
    stem = b.unit("stem", x, 4, shift=5)
    return [b.quantize("coarse", stem, 2), b.quantize("fine", stem, 7), b.quantize("same", stem, 5)]


def quantized_twice(b: ModelBuilder, x: str) -> list[str]:
    conv = b.conv("stem", x, 4)
    return [b.quantize("one", conv, 5), b.quantize("other", b.node("Relu", [conv], "other"), 3)]


def shared_weight(b: ModelBuilder, x: str) -> list[str]:
    """One weight on inputs of two shifts, as a head that all strides share: its bias is two different integers."""
    inputs = [b.unit("left", x, 4, shift=5), b.unit("right", x, 4, shift=3)]
    values = b.rng("head").standard_normal((4, 4, 1, 1)), np.array([1.0, 2.0, -1.0, 0.5])
    outputs = []
    for b.copy, feature in zip(("", "/second"), inputs, strict=True):
        outputs.append(b.unit("head", feature, 4, kernel=1, values=values, shift=4))
    return outputs


def upsampled_for_all(b: ModelBuilder, x: str) -> list[str]:
    """An upsampled map read by an add, a convolution, a concat and as an output."""
    up = b.upsample("up", b.unit("stem", x, 4, stride=2, shift=4), SMALL)
    b.channels[up] = 4
    left = b.unit("left", x, 4, shift=5)
    return [b.sum("sum", up, left, shift=4), b.unit("conv", up, 3, shift=4), b.concat("all", [up, left], shift=5), up]


def residual_after_the_sum(b: ModelBuilder, x: str) -> list[str]:
    """The un-requantized operand may stand on either side."""
    shortcut = b.unit("shortcut", x, 4, shift=6)
    return [b.sum("left", b.conv("a", x, 4), shortcut, shift=3), b.sum("right", shortcut, b.conv("b", x, 4), shift=8)]


@pytest.mark.parametrize("make", [rescaled, quantized_twice, shared_weight, upsampled_for_all, residual_after_the_sum])
def test_small_graphs_equal_onnx_runtime(make: Make) -> None:
    b = ModelBuilder(SMALL)
    tensors = make(b, b.image())
    model = b.finish({f"output{index}": tensor for index, tensor in enumerate(tensors)})
    module, parameters, _ = integer_module(model)
    picture = random_picture(SMALL, 5)
    for got, tensor, expected in zip(
        run_integer(module, parameters, picture), tensors, run_onnx(model, picture).values(), strict=True
    ):
        assert np.array_equal(got, np.ldexp(expected.transpose(0, 2, 3, 1), b.shift[tensor]))


def stored_as_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, its weights int8 and biases int32 with a DequantizeLinear only."""
    literal = {
        n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in model.graph.node if n.op_type == "Constant"
    }
    values = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    nodes, stored = [], {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in values:
            shift = -np.log2(literal[node.input[1]])[:, None, None, None]
            stored[node.output[0]] = node.input[0]
            values[node.input[0]] = np.rint(np.ldexp(values[node.input[0]], shift.astype(int))).astype(np.int8)
            continue
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            node.input[0] = stored[node.input[0]]
        nodes.append(node)
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.node[:], other.graph.initializer[:], other.graph.value_info[:]
    other.graph.node.extend(nodes)
    other.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    onnx.checker.check_model(other, full_check=True)
    return other


def test_weights_may_be_stored_as_integers(
    toy: onnx.ModelProto, integer: tuple[tvm.IRModule, Parameters, dict[str, str]]
) -> None:
    _, parameters, _ = integer_module(stored_as_integers(toy_network()))
    assert parameters.keys() == integer[1].keys()
    assert all(np.array_equal(value, integer[1][name]) for name, value in parameters.items())
