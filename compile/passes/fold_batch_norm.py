"""FoldBatchNorm: a convolution takes in the batch norm behind it.

    Before   y = batch_norm(conv2d(x, w) [+ b], gamma, beta, mean, variance)[0]
    After    y = conv2d(x, w') + b'
             w' = w * gamma / sqrt(variance + eps)
             b' = beta + (b - mean) * gamma / sqrt(variance + eps)

w (O, I/groups, kh, kw), all others (O,): only the output channel counts, so grouped convolutions need nothing special,
nor does another layout of data and weights. The formula is quant.fold.fold_batch_norm's, which training calls too. A
quantized weight is folded with the values that its Q/DQ pair returns, and its old scale goes with the pair. A weight
that several convolutions share is copied, since each takes in a batch norm of its own. A batch norm behind anything but
a convolution that only it reads becomes a convolution itself, 1x1 with a group to each channel.

Requires: batch norms over the channels. Ensures: no batch norm is left; `folded` counts them. Which ones a step absorbs
is the config's `fusion_bn_patterns`; the caller asks configs.fusion.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from compile.errors import CompileError
from compile.files import Parameters
from compile.graph import Graph, pruned
from compile.importer import constant_value
from compile.rewrite import operator_name, shape_of
from quant.errors import QuantError
from quant.fold import fold_batch_norm

BATCH_NORM, CONVOLUTION = "relax.nn.batch_norm", "relax.nn.conv2d"
Bindings = list[tuple[relax.Var, relax.Expr]]


def batch_norm_names(module: tvm.IRModule) -> list[str]:
    """Dotted names of the batch norms, those of their parameters without the last part."""
    norms = [value for value in Graph(module).value_of.values() if operator_name(value) == BATCH_NORM]
    return list(dict.fromkeys(name_of(call) for call in norms))  # tasks that are not merged yet name one again


def name_of(batch_norm: relax.Call) -> str:
    """Dotted name of a batch norm."""
    return str(batch_norm.args[1].name).removesuffix(".weight")


@tvm.transform.module_pass(opt_level=0, name="FoldBatchNorm")
class FoldBatchNorm:
    """See the module's text.

    `parameters` are changed in place: weights and biases folded, the batch norms' own gone.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.folded = 0

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        folding = _Folding(Graph(module), self.parameters)
        self.folded = len(folding.target_of)
        return folding.module()


@dataclass(frozen=True)
class _Target:
    """What takes in a batch norm: a convolution, its weight under the name that it will have, its bias or None."""

    convolution: relax.Var
    weight: relax.Var
    bias: relax.Var | None


class _Folding:
    def __init__(self, graph: Graph, parameters: Parameters) -> None:
        self.graph, self.parameters = graph, parameters
        self.original = dict(parameters)  # what several batch norms read must not change between them
        self.bindings: Bindings = []
        self.made: dict[str, relax.Var] = {}
        norms = [var for var, value in graph.value_of.items() if operator_name(value) == BATCH_NORM]
        convolutions = {var: self.convolution_before(var) for var in norms}
        weights = self.own_weights({convolution for convolution in convolutions.values() if convolution is not None})
        self.target_of: dict[relax.Var, _Target | None] = {
            norm: None if conv is None else _Target(conv, weights[conv], graph.bias_of(graph.value_of[norm].args[0]))
            for norm, conv in convolutions.items()
        }
        self.weight_of = {target.convolution: target.weight for target in self.target_of.values() if target}

    def module(self) -> tvm.IRModule:
        for binding in self.graph.bindings:
            var, value = binding.var, binding.value
            if var in self.weight_of:
                value = relax.Call(value.op, [value.args[0], self.weight_of[var]], value.attrs)
            if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.target_of:
                self.fold(var, self.graph.value_of[value.tuple_value], self.target_of[value.tuple_value])
            elif var not in self.target_of:
                self.bindings.append((var, value))
        return pruned(self.graph.main, self.bindings, list(self.graph.outputs), self.parameters)

    def convolution_before(self, norm: relax.Var) -> relax.Var | None:
        """The convolution whose result goes through a batch norm over its channels and nowhere else."""
        graph, call = self.graph, self.graph.value_of[norm]
        source = call.args[0]
        convolution = graph.value_of[source].args[0] if graph.bias_of(source) is not None else source
        if graph.operator(convolution) != CONVOLUTION or {convolution, source} & set(graph.outputs):
            return None
        if len(graph.readers[convolution]) > 1 or len(graph.readers[source]) > 1:
            return None
        return convolution if channel_axis(graph.value_of[convolution]) == int(call.attrs.axis) else None

    def own_weights(self, folded: set[relax.Var]) -> dict[relax.Var, relax.Var]:
        """A weight for each convolution that takes in a batch norm, by another name where others read the same one."""
        readers: dict[relax.Var, list[relax.Var]] = defaultdict(list)
        for var, value in self.graph.value_of.items():
            if operator_name(value) == CONVOLUTION:
                readers[self.weight_behind(value.args[1])].append(var)
        weights: dict[relax.Var, relax.Var] = {}
        for weight, convolutions in readers.items():
            for number, convolution in enumerate(convolutions, start=1):
                if convolution not in folded:
                    continue
                if self.original[weight.name].dtype != np.float32:
                    raise CompileError(
                        f"{weight.name}: a batch norm folds into a float weight only; export it before it is rounded"
                    )
                if number == 1 and folded.issuperset(convolutions):
                    weights[convolution] = weight
                else:
                    name = f"{str(weight.name).removesuffix('.weight')}.{number}.weight"
                    weights[convolution] = relax.Var(name, weight.ty)
        return weights

    def weight_behind(self, expr: relax.Expr) -> relax.Var:
        """The weight parameter, past its Q/DQ pair."""
        while self.graph.operator(expr) in ("relax.quantize", "relax.dequantize"):
            expr = self.graph.value_of[expr].args[0]
        return expr

    def fold(self, out: relax.Var, norm: relax.Call, target: _Target | None) -> None:
        """Folds the parameters, and appends the bindings that make `out` of them, the batch norm's result."""
        if target is None:
            self.as_convolution(out, norm)
            return
        layout = str(self.graph.value_of[target.convolution].attrs.kernel_layout)
        weight = self.effective_weight(self.graph.value_of[target.convolution].args[1])
        bias = None if target.bias is None else self.original[target.bias.name]
        axis = layout.index("O")
        folded, offset = self.folded(norm, np.moveaxis(weight, axis, 0), bias)
        self.parameters[target.weight.name] = np.ascontiguousarray(np.moveaxis(folded, 0, axis))
        name = str(target.weight.name).removesuffix(".weight") + ".bias"
        while name in self.original or name in self.parameters:  # another convolution's bias
            name = f"{name.removesuffix('.bias')}.folded.bias"
        if target.bias is not None and self.graph.is_read_once(target.bias):
            name = str(target.bias.name)
        self.add_offset(out, target.convolution, name, offset, int(norm.attrs.axis))

    def as_convolution(self, out: relax.Var, norm: relax.Call) -> None:
        """Appends a 1x1 convolution with a group to each channel, whose weights are the batch norm's factors."""
        x, axis = norm.args[0], int(norm.attrs.axis)
        shape = shape_of(x)
        if len(shape) != 4 or axis not in (1, 3):
            raise CompileError(
                f"{name_of(norm)}: a batch norm over axis {axis} of {shape}; only channels have an integer form"
            )
        channels = shape[axis]
        layout = "NCHW" if axis == 1 else "NHWC"
        ones = np.ones((channels, 1, 1, 1), np.float32)
        factor, offset = self.folded(norm, ones, None)
        weight = self.parameter(f"{name_of(norm)}.weight", factor)
        scaled = relax.DataflowVar(f"{out.name}.scaled", x.ty)
        kernel_layout = "OIHW" if axis == 1 else "OHWI"
        convolution = relax.op.nn.conv2d(x, weight, groups=channels, data_layout=layout, kernel_layout=kernel_layout)
        self.bindings.append((scaled, convolution))
        self.add_offset(out, scaled, f"{name_of(norm)}.bias", offset, axis)

    def add_offset(self, out: relax.Var, result: relax.Var, name: str, offset: np.ndarray, axis: int) -> None:
        """Appends `out` = `result` plus the bias `name`, one value to a channel."""
        shape = [1, 1, 1, 1]
        shape[axis] = len(offset)
        bias = self.parameter(name, offset)
        column = relax.DataflowVar(f"{name}.column", relax.TensorType(tuple(shape), "float32"))
        self.bindings.append((column, relax.op.reshape(bias, tuple(shape))))
        self.bindings.append((out, relax.op.add(result, column)))

    def parameter(self, name: str, value: np.ndarray) -> relax.Var:
        """A new parameter; the same variable where a batch norm that is applied twice makes it twice."""
        self.parameters[name] = value
        return self.made.setdefault(name, relax.Var(name, relax.TensorType(value.shape, "float32")))

    def folded(self, norm: relax.Call, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Weight (O, ...) and bias (O,) that do a batch norm's work, too. Raises CompileError naming it."""
        gamma, beta, mean, variance = (self.original[argument.name] for argument in norm.args[1:5])
        try:
            return fold_batch_norm(weight, bias, gamma, beta, mean, variance, float(norm.attrs.epsilon))
        except QuantError as error:
            raise CompileError(f"{name_of(norm)}: {error}") from error

    def effective_weight(self, expr: relax.Expr) -> np.ndarray:
        """The float weight that the convolution multiplies with: the parameter, or what its Q/DQ pair makes of it."""
        if self.graph.operator(expr) != "relax.dequantize":
            return self.original[expr.name]
        call = self.graph.value_of[self.graph.value_of[expr].args[0]]
        scale = constant_value(call.args[1], self.original)
        weight = self.original[call.args[0].name]
        assert scale is not None
        shape = [1] * weight.ndim
        shape[int(call.attrs.axis)] = scale.size
        column = scale.reshape(shape if scale.size > 1 else ()).astype(np.float64)
        return (np.clip(np.rint(weight / column), -128, 127) * column).astype(np.float32)


def channel_axis(convolution: relax.Call) -> int:
    """The axis of its output's channels."""
    return str(convolution.attrs.data_layout).index("C")
