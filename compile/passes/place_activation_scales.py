"""PlaceActivationScales: quantization where step 3 needs int8 tensors and the graph carries none.

    Before   y = conv2d(relu(a), w)
    After    q = dequantize(quantize(relu(a), 2^-s)); y = conv2d(q, w)

int8 are: the picture (shift 7), the input of every convolution, resize, concat and pool, every output, and all operands
of an add but one bare convolution (section 5 of docs/integer.md: where both operands are, the first stays an
accumulator). What is on a grid already, and copies of it, stay as they are. Requires: BN folded. Ensures: ToInteger
finds every tensor it needs on a grid.
"""

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from compile.files import Parameters
from compile.graph import Graph, pruned
from compile.rewrite import substitute
from quant.arith import INPUT_SHIFT
from quant.params import scale_of

COPIES = ("relax.image.resize2d", "relax.strided_slice")
ON_GRID = ("relax.dequantize", *COPIES)


@tvm.transform.module_pass(opt_level=0, name="PlaceActivationScales")
class PlaceActivationScales:
    """See the module's text.

    `shift_of` gives the shift of a variable's tensor; it is asked once for each that needs one.
    """

    def __init__(self, parameters: Parameters, shift_of: Callable[[relax.Var], int]) -> None:
        self.parameters = parameters
        self.shift_of = shift_of

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        writer = _Writer(Graph(module), self.shift_of)
        outputs = writer.write()
        return pruned(writer.graph.main, writer.bindings, outputs, self.parameters)


def tensors_without_scale(module: tvm.IRModule) -> list[relax.Var]:
    """The variables that the pass would ask a shift for, the picture excepted."""
    asked: list[relax.Var] = []

    def record(var: relax.Var) -> int:
        asked.append(var)
        return 0

    _Writer(Graph(module), record).write()
    return asked


class _Writer:
    def __init__(self, graph: Graph, shift_of: Callable[[relax.Var], int]) -> None:
        self.graph = graph
        self.image = graph.main.params[0]
        self.shift_of = shift_of
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []
        self.placed: dict[relax.Var, relax.Var] = {}

    def write(self) -> list[relax.Expr]:
        """Fills `bindings`; returns the outputs, quantized."""
        for binding in self.graph.bindings:
            value = substitute(binding.value, self.inputs_of(binding.var))
            self.bindings.append((binding.var, value))
        return [self.quantized(output) for output in self.graph.outputs]

    def inputs_of(self, var: relax.Var) -> dict[relax.Var, relax.Expr]:
        """Which variables the binding of `var` has to read in quantized form, and what stands for them."""
        value, operator = self.graph.value_of[var], self.graph.operator(var)
        if operator in ("relax.nn.conv2d", "relax.nn.avg_pool2d", *COPIES):
            wanted = [value.args[0]]
        elif operator == "relax.concat":
            wanted = list(value.args[0].fields)
        elif operator == "relax.add" and self.graph.bias_of(var) is None:
            a, b = value.args
            open_one = next((x for x in (a, b) if self.may_stay_open(x)), None)
            wanted = [x for x in (a, b) if x is not open_one]
        else:
            wanted = []
        return {x: self.quantized(x) for x in wanted}

    def may_stay_open(self, var: relax.Expr) -> bool:
        """Whether an add may read the tensor as an accumulator."""
        return self.graph.is_bare_convolution(var) and self.graph.only_reader(var) is not None

    def quantized(self, var: relax.Var) -> relax.Var:
        """The variable on a grid; its Q/DQ pair is written at the first use."""
        if self.graph.operator(var) in ON_GRID:
            return var
        if var not in self.placed:
            shift = INPUT_SHIFT if var == self.image else self.shift_of(var)
            scale, zero = relax.const(np.float32(scale_of(shift))), relax.const(np.int8(0))
            integer = relax.DataflowVar(f"{var.name}.quantized", relax.TensorType(var.ty.shape, "int8"))
            self.placed[var] = relax.DataflowVar(f"{var.name}.dequantized", var.ty)
            self.bindings.append((integer, relax.op.quantize(var, scale, zero, axis=1, out_dtype="int8")))
            self.bindings.append(
                (self.placed[var], relax.op.dequantize(integer, scale, zero, axis=1, out_dtype="float32"))
            )
        return self.placed[var]
