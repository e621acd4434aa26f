"""FoldBatchNorm: a convolution takes in the batch norm behind it.

    Before   y = batch_norm(conv2d(x, w) [+ b], gamma, beta, mean, variance)[0]
    After    y = conv2d(x, w') + b'
             w' = w * gamma / sqrt(variance + eps)
             b' = beta + (b - mean) * gamma / sqrt(variance + eps)

w (O, I/groups, kh, kw), all others (O,): only the output channel counts, so grouped convolutions need nothing special.
The formula is quant.fold.fold_batch_norm's, which training calls too. A quantized weight is folded with the values that
its Q/DQ pair returns, and its old scale goes with the pair. Requires: every batch norm reads a convolution that nothing
else reads, with a weight of its own. Ensures: no batch norm is left (raises naming it); `folded` counts them. Which
ones a step absorbs is the config's `fusion_bn_patterns`; the caller asks configs.fusion.
"""

from collections import Counter

import numpy as np
import tvm
from tvm import relax

from compile.errors import CompileError
from compile.files import Parameters
from compile.graph import Graph, pruned
from compile.importer import constant_value
from compile.rewrite import operator_name
from quant.errors import QuantError
from quant.fold import fold_batch_norm

BATCH_NORM = "relax.nn.batch_norm"


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
        graph = Graph(module)
        parts = {
            var: self.match(graph, var, value)
            for var, value in graph.value_of.items()
            if operator_name(value) == BATCH_NORM
        }
        weight_of = {convolution: weight for convolution, weight, _ in parts.values()}
        self.check_unshared(graph, set(weight_of.values()))
        bindings: list[tuple[relax.Var, relax.Expr]] = []
        for binding in graph.bindings:
            var, value = binding.var, binding.value
            if var in weight_of:
                value = relax.Call(value.op, [value.args[0], weight_of[var]], value.attrs)
            if isinstance(value, relax.TupleGetItem) and value.tuple_value in parts:
                bindings += self.fold(graph, var, value.tuple_value, *parts[value.tuple_value])
            elif var not in parts:
                bindings.append((var, value))
        self.folded = len(parts)
        return pruned(graph.main, bindings, list(graph.outputs), self.parameters)

    def match(self, graph: Graph, var: relax.Var, call: relax.Call) -> tuple[relax.Var, relax.Var, relax.Var | None]:
        """The convolution, its weight and its bias (or None) before a batch norm.

        Raises CompileError where no convolution of the batch norm's own is before it.
        """
        source = call.args[0]
        bias = graph.bias_of(source)
        convolution = graph.value_of[source].args[0] if bias is not None else source
        if (
            graph.operator(convolution) != "relax.nn.conv2d"
            or graph.only_reader(convolution) is None
            or graph.only_reader(source) is None
        ):
            raise CompileError(
                f"{name_of(call)}: a batch norm that does not follow a convolution of its own cannot be folded; "
                "move it behind one"
            )
        return convolution, self.weight_behind(graph, graph.value_of[convolution].args[1]), bias

    def check_unshared(self, graph: Graph, weights: set[relax.Var]) -> None:
        """Raises CompileError for a weight that a second convolution reads, for which folding would change it, too."""
        readers = Counter(
            self.weight_behind(graph, value.args[1])
            for value in graph.value_of.values()
            if operator_name(value) == "relax.nn.conv2d"
        )
        for weight in weights:
            if readers[weight] > 1:
                raise CompileError(
                    f"{weight.name}: {readers[weight]} convolutions share this weight, with batch norms behind them; "
                    "give each a weight of its own"
                )

    def weight_behind(self, graph: Graph, expr: relax.Expr) -> relax.Var:
        """The weight parameter, past its Q/DQ pair."""
        while graph.operator(expr) in ("relax.quantize", "relax.dequantize"):
            expr = graph.value_of[expr].args[0]
        if self.parameters[expr.name].dtype != np.float32:
            raise CompileError(
                f"{expr.name}: a batch norm folds into a float weight only; export it before it is rounded"
            )
        return expr

    def fold(
        self,
        graph: Graph,
        out: relax.Var,
        batch_norm: relax.Var,
        convolution: relax.Var,
        weight: relax.Var,
        bias: relax.Var | None,
    ) -> list[tuple[relax.Var, relax.Expr]]:
        """Folds the parameters; returns the bindings that make `out`, the batch norm's result, the convolution's."""
        call = graph.value_of[batch_norm]
        gamma, beta, mean, variance = (self.parameters[argument.name] for argument in call.args[1:5])
        try:
            folded_weight, folded_bias = fold_batch_norm(
                self.effective_weight(graph, graph.value_of[convolution].args[1]),
                None if bias is None else self.parameters[bias.name],
                gamma,
                beta,
                mean,
                variance,
                float(call.attrs.epsilon),
            )
        except QuantError as error:
            raise CompileError(f"{name_of(call)}: {error}") from error
        name = str(weight.name).removesuffix(".weight") + ".bias" if bias is None else str(bias.name)
        self.parameters[weight.name], self.parameters[name] = folded_weight, folded_bias
        channels = len(folded_bias)
        new_bias = relax.Var(name, relax.TensorType((channels,), "float32")) if bias is None else bias
        column = relax.DataflowVar(f"{name}.column", relax.TensorType((1, channels, 1, 1), "float32"))
        return [
            (column, relax.op.reshape(new_bias, (1, channels, 1, 1))),
            (out, relax.op.add(convolution, column)),
        ]

    def effective_weight(self, graph: Graph, expr: relax.Expr) -> np.ndarray:
        """The float weight that the convolution multiplies with: the parameter, or what its Q/DQ pair makes of it."""
        if graph.operator(expr) != "relax.dequantize":
            return self.parameters[expr.name]
        call = graph.value_of[graph.value_of[expr].args[0]]
        scale = constant_value(call.args[1], self.parameters)
        weight = self.parameters[call.args[0].name]
        assert scale is not None
        column = np.broadcast_to(scale, weight.shape[:1]).reshape(-1, 1, 1, 1).astype(np.float64)
        return (np.clip(np.rint(weight / column), -128, 127) * column).astype(np.float32)
