"""An ONNX file of others, read and checked as a whole: one picture in, static shapes, known ops."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from compile.errors import CompileError
from compile.files import first_line

OLDEST_OPSET = 11  # before it Clip, Pad and Resize meant other things
SUPPORTED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Constant", "Identity", "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat"}
    | {"AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool", "ReduceMean", "Resize", "Slice", "Pad"}
    | {"Relu", "Clip", "LeakyRelu", "Sigmoid", "ArgMax", "Flatten", "Reshape", "Transpose"}
)


@dataclass(frozen=True)
class ForeignModel:
    """The graph with its constants and the shapes of all tensors."""

    path: Path
    proto: onnx.ModelProto
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """In order, without those that are constants."""
        return [node for node in self.proto.graph.node if node.op_type != "Constant"]

    @property
    def input(self) -> onnx.ValueInfoProto:
        """The picture."""
        return next(entry for entry in self.proto.graph.input if entry.name not in self.constants)

    def error(self, node: onnx.NodeProto, problem: str) -> CompileError:
        """What to raise about a node."""
        return CompileError(f"{self.path}: node {name_of(node)} ({node.op_type}): {problem}")


def name_of(node: onnx.NodeProto) -> str:
    """Its own, or its output's."""
    return str(node.name or node.output[0])


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """By name, strings as str."""
    values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def read_foreign(path: Path) -> ForeignModel:
    """Raises CompileError for what is no such model, naming the file and, where one is to blame, the node."""
    if not path.is_file():
        raise CompileError(f"{path}: no such file; give an ONNX model with QuantizeLinear and DequantizeLinear nodes")
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and the checker raise classes of their own
        raise CompileError(f"{path}: not a valid ONNX model ({first_line(error)}); export it again") from None
    constants = {entry.name: _array(entry, entry.name, path) for entry in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _constant(node, path)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise CompileError(f"{path}: opset {opset} is too old; export it with {OLDEST_OPSET} or a later one")
    _check_ops(proto, path)
    _check_inputs(proto, constants, path)
    model = ForeignModel(path, proto, constants, _shapes(proto, path))
    _check_shapes(model)
    return model


def _constant(node: onnx.NodeProto, path: Path) -> NDArray[Any]:
    values = attributes_of(node)
    if "value" in values:
        return _array(values["value"], node.output[0], path)
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if name in values:
            return np.array(values[name], np.float32 if "float" in name else np.int64)
    raise CompileError(f"{path}: node {name_of(node)} (Constant): only tensors and numbers can be read")


def _array(tensor: onnx.TensorProto, name: str, path: Path) -> NDArray[Any]:
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # whatever numpy and onnx make of bytes that do not fit the shape
        raise CompileError(f"{path}: tensor {name} cannot be read ({first_line(error)}); export it again") from error


def _check_ops(proto: onnx.ModelProto, path: Path) -> None:
    for node in proto.graph.node:
        if node.op_type not in SUPPORTED or node.domain not in ("", "ai.onnx"):
            kind = f"{node.domain}.{node.op_type}".lstrip(".")
            raise CompileError(
                f"{path}: node {name_of(node)} is a {kind}, which has no integer form here; export a model of "
                f"{', '.join(sorted(SUPPORTED))} only"
            )


def _check_inputs(proto: onnx.ModelProto, constants: dict[str, NDArray[Any]], path: Path) -> None:
    inputs = [entry for entry in proto.graph.input if entry.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs)
        raise CompileError(f"{path}: it has {len(inputs)} inputs ({names}); export a model of one picture")
    tensor = inputs[0].type.tensor_type
    sizes = [entry.dim_value for entry in tensor.shape.dim]
    if not all(size > 0 for size in sizes):
        named = [entry.dim_param or "?" for entry in tensor.shape.dim if entry.dim_value <= 0]
        raise CompileError(
            f"{path}: input {inputs[0].name} has dynamic sizes ({', '.join(named)}); export it with a fixed shape"
        )
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4 or sizes[0] != 1:
        raise CompileError(f"{path}: input {inputs[0].name} is no float32 (1, C, H, W); export it as one picture")


def _shapes(proto: onnx.ModelProto, path: Path) -> dict[str, tuple[int, ...]]:
    try:
        inferred = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise CompileError(f"{path}: its sizes do not fit each other ({first_line(error)}); export it again") from None
    types = {entry.name: entry.type.tensor_type for entry in (*inferred.value_info, *inferred.input, *inferred.output)}
    known = {name: found for name, found in types.items() if found.HasField("shape")}
    return {name: tuple(size.dim_value for size in found.shape.dim) for name, found in known.items()}


def _check_shapes(model: ForeignModel) -> None:
    for node in model.nodes:
        for name in filter(None, node.output):  # one that is not wanted has no name
            if name not in model.shapes or not all(size > 0 for size in model.shapes[name]):
                raise model.error(node, "its shape is not known before it runs; export it with fixed shapes")


def pair(values: Sequence[int]) -> tuple[int, int]:
    """Two integers."""
    first, second = (int(value) for value in values)
    return first, second
