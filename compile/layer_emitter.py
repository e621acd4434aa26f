"""Writes the integer graph: `main` calling layer functions, each distinct layer function once."""

import numpy as np
import tvm
from tvm import relax

from compile.files import Parameters
from compile.layers import Layer
from compile.rewrite import main_function, shape_of, typed_global


class LayerEmitter:
    """Collects layers in the order of execution.

    `picture` is main's first input, uint8 NHWC; weights become inputs by name.
    """

    def __init__(self, picture_shape: tuple[int, ...]) -> None:
        self.picture = relax.Var("picture", relax.TensorType(picture_shape, "uint8"))
        self.parameters: Parameters = {}
        self._weights: dict[str, relax.Var] = {}
        self._calls: list[tuple[relax.Var, relax.Expr]] = []
        self._functions: dict[tuple[Layer, tuple[tuple[int, ...], ...]], tuple[relax.GlobalVar, relax.Function]] = {}
        self._names: set[str] = set()

    def parameter(self, name: str, value: np.ndarray) -> relax.Var:
        """The input of `main` that carries a weight.

        Layers that share a weight share the input, unless their grids make other integers of it: those get a number.
        """
        unique, number = name, 1
        while unique in self.parameters and not np.array_equal(self.parameters[unique], value):
            number += 1
            unique = f"{name}.{number}"
        if unique not in self.parameters:
            self._weights[unique] = relax.Var(unique, relax.TensorType(value.shape, str(value.dtype)))
            self.parameters[unique] = value
        return self._weights[unique]

    def emit(self, layer: Layer, inputs: list[relax.Expr], name: str) -> relax.Var:
        """Appends a call of the layer; the result is named after the layer, with a number where the name is taken."""
        shapes = tuple(shape_of(value) for value in inputs)
        key = (layer, shapes)
        if key not in self._functions:
            function = layer.build(shapes)
            self._functions[key] = (typed_global(f"{layer.kind}_{len(self._functions)}", function), function)
        global_var, function = self._functions[key]
        unique, number = name, 1
        while unique in self._names:
            number += 1
            unique = f"{name}.{number}"
        self._names.add(unique)
        var = relax.DataflowVar(unique, function.ret_ty)
        self._calls.append((var, relax.Call(global_var, inputs)))
        return var

    def finish(self, outputs: list[relax.Expr]) -> tvm.IRModule:
        """`main(picture, weights...) -> tuple of the outputs`, and the layer functions."""
        main = main_function([self.picture, *self._weights.values()], self._calls, outputs, {"num_input": 1})
        return tvm.IRModule({relax.GlobalVar("main"): main, **dict(self._functions.values())})
