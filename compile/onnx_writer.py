"""Relax -> ONNX for the float and Q/DQ graphs of the compiler: the inverse of the importer, on the same few operators.

Tensors are named after their Relax variables, weights keep their dotted names, a convolution's bias becomes its third
input again.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from compile.errors import CompileError
from compile.files import Parameters
from compile.graph import Graph
from compile.rewrite import NEAREST_FLOOR, constant_tuple, resize_rule, shape_of

OPSET = 17
IR_VERSION = 9


def to_onnx(module: tvm.IRModule, parameters: Parameters, output_names: Sequence[str]) -> onnx.ModelProto:
    """The module as a checked ONNX model, its outputs named `output_names`.

    Raises CompileError naming an operator that it cannot write.
    """
    writer = _Writer(Graph(module), parameters, output_names)
    for binding in writer.graph.bindings:
        writer.write(binding.var, binding.value)
    outputs = []
    for field, name in zip(writer.graph.outputs, output_names, strict=True):
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape_of(field)))
    image = writer.graph.main.params[0]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape_of(image))]
    graph = helper.make_graph(writer.nodes, "bitroad", inputs, outputs, list(writer.initializers.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Writer:
    def __init__(self, graph: Graph, parameters: Parameters, output_names: Sequence[str]) -> None:
        self.graph = graph
        self.parameters = parameters
        self.output_name = dict(zip(graph.outputs, output_names, strict=True))
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def name(self, expr: relax.Expr) -> str:
        """The ONNX name of a variable or weight."""
        if expr == self.graph.main.params[0]:
            return "image"
        if expr in self.output_name:
            return self.output_name[expr]
        name = str(expr.name)
        if expr in self.graph.value_of:
            # what an output was before its quantization may still bear the output's name
            return f"{name}.unquantized" if name in self.output_name.values() else name
        return self.initializer(name, self.parameters[name])

    def initializer(self, name: str, value: np.ndarray) -> str:
        self.initializers.setdefault(name, numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))

    def write(self, var: relax.Var, value: relax.Expr) -> None:
        operator = self.graph.operator(var)
        if operator not in _WRITERS:
            raise CompileError(
                f"{var.name}: {operator or type(value).__name__} cannot be written as ONNX; fold it first"
            )
        _WRITERS[operator](self, var, value)

    def write_quantization(self, var: relax.Var, call: relax.Call) -> None:
        kind = "QuantizeLinear" if self.graph.operator(var) == "relax.quantize" else "DequantizeLinear"
        base = str(var.name).removesuffix(".dequantized").removesuffix(".quantized")
        scale, zero = (
            self.initializer(f"{base}.{part}", constant.value.numpy())
            for part, constant in zip(("scale", "zero_point"), call.args[1:3], strict=True)
        )
        axis = {"axis": int(call.attrs.axis)} if len(shape_of(call.args[1])) else {}
        self.node(kind, [self.name(call.args[0]), scale, zero], self.name(var), **axis)

    def write_convolution(self, var: relax.Var, call: relax.Call) -> None:
        reader = self.graph.only_reader(var)
        bias = self.graph.bias_of(reader) if reader is not None else None
        inputs = [self.name(argument) for argument in call.args]
        output = self.name(var)
        if bias is not None:
            inputs.append(self.name(bias))
            output = self.name(reader)
        attributes = call.attrs
        self.node(
            "Conv",
            inputs,
            output,
            kernel_shape=list(shape_of(call.args[1])[2:]),
            strides=[int(value) for value in attributes.strides],
            pads=[int(value) for value in attributes.padding],
            dilations=[int(value) for value in attributes.dilation],
            group=int(attributes.groups),
        )

    def write_add(self, var: relax.Var, call: relax.Call) -> None:
        if self.graph.bias_of(var) is None:  # else it is the convolution's third input
            self.node("Add", [self.name(argument) for argument in call.args], self.name(var))

    def write_bias_column(self, var: relax.Var, call: relax.Call) -> None:
        """The reshape of a bias: part of the convolution in ONNX."""

    def write_relu(self, var: relax.Var, call: relax.Call) -> None:
        self.node("Relu", [self.name(call.args[0])], self.name(var))

    def write_resize(self, var: relax.Var, call: relax.Call) -> None:
        if resize_rule(call) != NEAREST_FLOOR:
            raise CompileError(f"{var.name}: a Resize of {', '.join(resize_rule(call))} cannot be written as ONNX here")
        scales = [float(after / before) for before, after in zip(shape_of(call.args[0]), shape_of(var), strict=True)]
        scale_name = self.initializer(f"{var.name}.scales", np.array(scales, np.float32))
        rule = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        self.node("Resize", [self.name(call.args[0]), "", scale_name], self.name(var), **rule)

    def write_slice(self, var: relax.Var, call: relax.Call) -> None:
        axes, starts, ends, steps = (constant_tuple(argument) for argument in call.args[1:5])
        values = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        inputs = [self.initializer(f"{var.name}.{part}", np.array(value, np.int64)) for part, value in values.items()]
        self.node("Slice", [self.name(call.args[0]), *inputs], self.name(var))

    def write_concat(self, var: relax.Var, call: relax.Call) -> None:
        self.node(
            "Concat", [self.name(field) for field in call.args[0].fields], self.name(var), axis=int(call.attrs.axis)
        )

    def write_average_pool(self, var: relax.Var, call: relax.Call) -> None:
        attributes = {
            "kernel_shape": [int(size) for size in call.attrs.pool_size],
            "strides": [int(size) for size in call.attrs.strides],
            "pads": [int(size) for size in call.attrs.padding],
            "ceil_mode": int(call.attrs.ceil_mode),
            "count_include_pad": int(call.attrs.count_include_pad),
        }
        if any(int(size) != 1 for size in call.attrs.dilation):
            raise CompileError(f"{var.name}: an average pooling with dilations cannot be written as ONNX here")
        self.node("AveragePool", [self.name(call.args[0])], self.name(var), **attributes)


_WRITERS: dict[str, Callable[[_Writer, relax.Var, relax.Call], None]] = {
    "relax.quantize": _Writer.write_quantization,
    "relax.dequantize": _Writer.write_quantization,
    "relax.nn.conv2d": _Writer.write_convolution,
    "relax.add": _Writer.write_add,
    "relax.reshape": _Writer.write_bias_column,
    "relax.nn.relu": _Writer.write_relu,
    "relax.image.resize2d": _Writer.write_resize,
    "relax.strided_slice": _Writer.write_slice,
    "relax.concat": _Writer.write_concat,
    "relax.nn.avg_pool2d": _Writer.write_average_pool,
}
