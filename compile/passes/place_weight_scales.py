"""PlaceWeightScales: weights and biases onto their grids, one shift per output channel, chosen under the certificate.

    Before   y = conv2d(x, w) + b
    After    y = conv2d(x, dequantize(quantize(w, 2^-sw[c]))) + b on the grid sx + sw[c]

quant.params.choose_weight_shift picks the largest shift under both limits, residual included. With `means`, what
rounding the weights adds to the mean of an output channel is taken off its bias (bias correction, Nagel et al., arXiv
1906.04721, 4.2): sum over the input channels of their mean times the sum of their weights' errors. Requires: every
convolution's input and residual on a grid (PlaceActivationScales). Ensures: every weight has a scale; biases lie on the
accumulator's grid. Weights that carry a scale keep it.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from compile.errors import CompileError
from compile.files import Parameters
from compile.graph import Graph, pruned
from compile.importer import constant_value
from compile.passes.place_activation_scales import COPIES
from quant.arith import INT8_MAX, INT8_MIN
from quant.errors import QuantError
from quant.params import choose_weight_shift, quantize_bias, quantize_weight, shift_of


@tvm.transform.module_pass(opt_level=0, name="PlaceWeightScales")
class PlaceWeightScales:
    """See the module's text. `parameters` are changed in place: biases rounded to the grid.

    `means`: by the name of a float tensor, the mean of each of its channels; a convolution that reads another tensor
    keeps its bias.
    """

    def __init__(self, parameters: Parameters, means: Mapping[str, NDArray[np.float64]] | None = None) -> None:
        self.parameters = parameters
        self.means = means or {}

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        graph, placed = Graph(module), Counter[str]()
        bindings: list[tuple[relax.Var, relax.Expr]] = []
        for binding in graph.bindings:
            var, value = binding.var, binding.value
            if graph.operator(var) == "relax.nn.conv2d" and value.args[1].name in self.parameters:
                weight = value.args[1]
                placed[weight.name] += 1
                pair = weight_pair(weight, self.place(graph, var), placed[weight.name])
                bindings += pair
                value = relax.Call(value.op, [value.args[0], pair[-1][0]], value.attrs)
            bindings.append((var, value))
        return pruned(graph.main, bindings, list(graph.outputs), self.parameters)

    def place(self, graph: Graph, conv: relax.Var) -> np.ndarray:
        """Chooses the weight shifts of a convolution and rounds its bias to the grid that follows."""
        x, weight = graph.value_of[conv].args
        input_shift, input_max = self.grid_of(graph, x)
        addition = graph.only_reader(conv)
        bias = graph.bias_of(addition) if addition is not None else None
        weights = self.parameters[weight.name]
        values = np.zeros(len(weights), np.float32) if bias is None else self.parameters[bias.name]
        residual_shift = self.residual_shift(graph, conv if bias is None else addition)
        choose = partial(
            choose_weight_shift, input_shift=input_shift, input_max=input_max, residual_shift=residual_shift
        )
        try:
            shift = choose(weights, values)
            mean = self.means.get(source_name(graph, x))
            if mean is not None and bias is not None and graph.is_read_once(bias):
                groups = int(graph.value_of[conv].attrs.groups)
                shift = np.minimum(shift, choose(weights, corrected(values, weights, shift, mean, groups)))
                values = corrected(values, weights, shift, mean, groups)
        except QuantError as error:
            raise CompileError(f"{weight.name}: {error}") from error
        if bias is not None:
            grid = shift + input_shift
            self.parameters[bias.name] = np.ldexp(quantize_bias(values, grid).astype(np.float64), -grid).astype(
                np.float32
            )
        return shift

    def grid_of(self, graph: Graph, var: relax.Var) -> tuple[int, int]:
        """Shift and max|q| of a tensor on a grid; copies have their source's."""
        value = graph.value_of[var]
        if graph.operator(var) != "relax.dequantize":
            return self.grid_of(graph, value.args[0])
        scale = constant_value(value.args[1], self.parameters)
        assert scale is not None
        behind_relu = graph.operator(graph.value_of[value.args[0]].args[0]) == "relax.nn.relu"
        return shift_of(float(scale)), INT8_MAX if behind_relu else -INT8_MIN

    def residual_shift(self, graph: Graph, result: relax.Var) -> int | None:
        """Shift of what is added to a convolution's bare result before it is quantized; None where nothing is."""
        reader = graph.only_reader(result)
        if reader is None or graph.operator(reader) != "relax.add":
            return None
        (other,) = (argument for argument in graph.value_of[reader].args if argument != result)
        return self.grid_of(graph, other)[0]


def source_name(graph: Graph, var: relax.Var) -> str:
    """The float tensor that a tensor on a grid was made of, by its name; copies have their source's values."""
    while graph.operator(var) in ("relax.dequantize", "relax.quantize", *COPIES):
        var = graph.value_of[var].args[0]
    return str(var.name)


def corrected(
    bias: NDArray[np.float32],
    weight: NDArray[np.float32],
    shift: NDArray[np.int64],
    mean: NDArray[np.float64],
    groups: int,
) -> NDArray[np.float32]:
    """Bias (O,) less what rounding the weights (O, I / groups, kh, kw) adds to the output's mean, where the input's
    channels have the means (I,). What is padded counts as if it had the mean, too.
    """
    column = shift.reshape(-1, 1, 1, 1)
    error = np.ldexp(quantize_weight(weight, shift).astype(np.float64), -column) - weight
    by_group = error.sum(axis=(2, 3)).reshape(groups, -1, weight.shape[1])
    added = (by_group * mean.reshape(groups, 1, -1)).sum(axis=2).reshape(-1)
    return (bias - added).astype(np.float32)


def weight_pair(weight: relax.Var, shift: np.ndarray, number: int) -> list[tuple[relax.Var, relax.Expr]]:
    """quantize and dequantize of a weight, per output channel; `number` counts the pairs of a shared weight."""
    name = str(weight.name) if number == 1 else f"{weight.name}.{number}"
    scale, zero = relax.const(np.ldexp(1.0, -shift).astype(np.float32)), relax.const(np.zeros(len(shift), np.int8))
    integer = relax.DataflowVar(f"{name}.quantized", relax.TensorType(weight.ty.shape, "int8"))
    float_again = relax.DataflowVar(f"{name}.dequantized", weight.ty)
    return [
        (integer, relax.op.quantize(weight, scale, zero, axis=0, out_dtype="int8")),
        (float_again, relax.op.dequantize(integer, scale, zero, axis=0, out_dtype="float32")),
    ]
