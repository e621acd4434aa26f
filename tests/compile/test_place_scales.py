"""Scales placed in float graphs: where they must stand, how fine they are; the result goes to integer exactly."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compile.certify import layer_calls
from compile.errors import CompileError
from compile.importer import import_onnx
from compile.layers import AddLayer, ConcatLayer, ConvLayer
from compile.onnx_writer import to_onnx
from compile.passes.place_activation_scales import tensors_without_scale
from compile.pipeline import run_passes, scale_passes
from quant.params import choose_weight_shift
from tests.compile.engines import integer_module, run_integer
from tests.compile.models import ModelBuilder, random_picture, run_onnx

HW = (8, 12)
SHIFT = 4
Make = Callable[[ModelBuilder, str], str]


def placed(make: Make, change: Callable[[ModelBuilder], None] = lambda _: None) -> onnx.ModelProto:
    """A float model, every activation put on SHIFT."""
    b = ModelBuilder(HW, quantized=False)
    output = make(b, b.image())
    change(b)
    imported = import_onnx(b.finish({"out": output}))
    parameters = dict(imported.parameters)
    asked = tensors_without_scale(imported.module)
    assert len(set(asked)) == len(asked)
    module = run_passes(imported.module, scale_passes(parameters, lambda _: SHIFT), None)
    assert not tensors_without_scale(module), "what is on a grid is not asked for again"
    return to_onnx(module, parameters, imported.output_names)


def stem_and_relu(b: ModelBuilder, x: str) -> str:
    return b.unit("second", b.unit("first", x, 4, relu=True, shift=0), 3, shift=0)


def two_bare_convolutions(b: ModelBuilder, x: str) -> str:
    """The first stays an accumulator, the other becomes its residual."""
    return b.sum("merge", b.conv("left", x, 4), b.conv("right", x, 4, bias=False), shift=0)


def residual_block(b: ModelBuilder, x: str) -> str:
    first = b.unit("first", x, 4, relu=True, shift=0)
    return b.sum("block", first, b.conv("main", first, 4), shift=0)


def read_twice(b: ModelBuilder, x: str) -> str:
    """An accumulator that something else reads too has to be int8 everywhere."""
    conv = b.conv("both", x, 4)
    return b.sum("sum", conv, b.conv("after", conv, 4, bias=False), shift=0)


def behind_relu(b: ModelBuilder, x: str) -> str:
    relus = [b.unit(name, x, 4, relu=True, shift=0) for name in ("left", "right")]
    return b.sum("sum", *relus, relu=False, shift=0)


def copies(b: ModelBuilder, x: str) -> str:
    """An upsampled, cropped map stays on its source's grid, into a concat and a pool."""
    small = b.unit("small", x, 4, stride=2, shift=0)
    up = b.upsample("up", small, HW)
    b.channels[up] = 4
    joined = b.concat("joined", [up, b.unit("other", x, 3, shift=0)], shift=0)
    return b.conv("last", b.pool("pool", joined, shift=0), 5)


GRAPHS: list[tuple[Make, list[type]]] = [
    (stem_and_relu, [ConvLayer, ConvLayer]),
    (two_bare_convolutions, [ConvLayer, ConvLayer]),
    (residual_block, [ConvLayer, ConvLayer]),
    (read_twice, [ConvLayer, ConvLayer]),
    (behind_relu, [ConvLayer, ConvLayer, AddLayer]),
    (copies, [ConvLayer, ConvLayer, ConcatLayer, ConvLayer]),
]


@pytest.mark.parametrize(("make", "layers"), GRAPHS)
def test_what_is_placed_goes_to_integer_exactly(make: Make, layers: list[type]) -> None:
    model = placed(make)
    module, parameters, _ = integer_module(model)
    summing = [
        type(call.layer) for call in layer_calls(module) if type(call.layer) in (ConvLayer, AddLayer, ConcatLayer)
    ]
    assert summing == layers
    picture = random_picture(HW, 3)
    (got,) = run_integer(module, parameters, picture)
    assert np.array_equal(got, np.ldexp(run_onnx(model, picture)["out"].transpose(0, 2, 3, 1), SHIFT))
    assert len(np.unique(got)) > 20


def shifts_of(model: onnx.ModelProto, weight: str) -> np.ndarray:
    constant = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    (node,) = (node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == weight)
    return -np.log2(constant[node.input[1]]).astype(int)


def test_weights_and_biases_get_the_finest_grid_under_the_bound() -> None:
    """Behind a ReLU inputs end at 127; a residual counts. The bias is the nearest value of the accumulator's grid."""

    def at_the_limit(b: ModelBuilder) -> None:
        """Channel 0 is over the bound with its residual only, channel 1 would be over it with inputs of 128."""
        weight, bias = b.parameters["main.conv.weight"], b.parameters["main.conv.bias"]
        weight[0], bias[0] = 0, (2**24 - 20000) / 2**12
        weight[1], bias[1] = 127 / 128, (2**24 - 128 * 2**7 - 4 * 9 * 127 * 127.5) / 2**11

    values = ModelBuilder(HW, quantized=False)
    residual_block(values, values.image())
    at_the_limit(values)
    model = placed(residual_block, at_the_limit)
    floats = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    wanted = {
        "first": choose_weight_shift(
            values.parameters["first.conv.weight"],
            values.parameters["first.conv.bias"],
            input_shift=7,
            input_max=128,
        ),
        "main": choose_weight_shift(
            values.parameters["main.conv.weight"],
            values.parameters["main.conv.bias"],
            input_shift=SHIFT,
            input_max=127,
            residual_shift=SHIFT,
        ),
    }
    for name, input_shift in (("first", 7), ("main", SHIFT)):
        shift = shifts_of(model, f"{name}.conv.weight")
        assert np.array_equal(shift, wanted[name])
        before, after = values.parameters[f"{name}.conv.bias"].astype(np.float64), floats[f"{name}.conv.bias"]
        assert np.array_equal(after, np.rint(before * 2.0 ** (input_shift + shift)) / 2.0 ** (input_shift + shift))
        assert not np.array_equal(after, before)
    assert wanted["main"][:2].tolist() == [7, 7]


def test_a_weight_that_is_no_number_is_named() -> None:
    def damage(b: ModelBuilder) -> None:
        b.parameters["second.conv.weight"][0, 0, 0, 0] = np.inf

    with pytest.raises(CompileError, match=r"^second\.conv\.weight: a weight or bias is not finite"):
        placed(stem_and_relu, damage)
