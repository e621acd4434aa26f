"""Writes the integer graph: `main` calling layer functions, each distinct layer function once."""

import numpy as np
import tvm
from tvm import relax

from compile.files import Parameters
from compile.layers import Layer


class LayerEmitter:
    """Collects layers in the order of execution. `picture` is main's first input, uint8 NHWC; weights become inputs by name."""

    def __init__(self, picture_shape: tuple[int, ...]) -> None:
        self.picture = relax.Var("picture", relax.TensorType(picture_shape, "uint8"))
        self.parameters: Parameters = {}
        self._weights: dict[str, relax.Var] = {}
        self._calls: list[tuple[relax.Var, relax.Call]] = []
        self._functions: dict[tuple[Layer, tuple[tuple[int, ...], ...]], tuple[relax.GlobalVar, relax.Function]] = {}
        self._names: set[str] = set()

    def parameter(self, name: str, value: np.ndarray) -> relax.Var:
        """The input of `main` that carries a weight; one that two layers share is one input."""
        if name not in self._weights:
            self._weights[name] = relax.Var(name, relax.TensorType(value.shape, str(value.dtype)))
            self.parameters[name] = value
        return self._weights[name]

    def emit(self, layer: Layer, inputs: list[relax.Expr], name: str) -> relax.Var:
        """Appends a call of the layer; the result is named after the layer, with a number where the name is taken."""
        shapes = tuple(tuple(int(size) for size in value.ty.shape) for value in inputs)
        key = (layer, shapes)
        if key not in self._functions:
            function = layer.build(shapes)
            global_var = relax.GlobalVar(f"{layer.kind}_{len(self._functions)}")
            relax.expr._update_type(global_var, function.ty)
            self._functions[key] = (global_var, function)
        global_var, function = self._functions[key]
        unique, number = name, 1
        while unique in self._names:
            number += 1
            unique = f"{name}.{number}"
        self._names.add(unique)
        var = relax.DataflowVar(unique, function.ret_ty)
        self._calls.append((var, relax.Call(global_var, inputs)))
        return var

    def finish(self, outputs: list[relax.Var]) -> tvm.IRModule:
        """`main(picture, weights...) -> tuple of the outputs`, and the layer functions."""
        result = relax.Var("outputs", relax.TupleType([output.ty for output in outputs]))
        bindings = [relax.VarBinding(var, call) for var, call in self._calls]
        block = relax.DataflowBlock([*bindings, relax.VarBinding(result, relax.Tuple(outputs))])
        main = relax.Function(
            [self.picture, *self._weights.values()], relax.SeqExpr([block], result), result.ty, is_pure=True
        ).with_attrs({"global_symbol": "main", "num_input": 1})
        functions = {global_var: function for global_var, function in self._functions.values()}
        return tvm.IRModule({relax.GlobalVar("main"): main, **functions})
