"""Small ONNX graphs of single ops between Q/DQ pairs, with any scales."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from compile.foreign.model import ForeignModel, read_foreign
from compile.foreign.network import Network
from compile.foreign.operators import read_network

Array = np.ndarray
SHAPE = (1, 6, 9, 7)


class Graph:
    """Grows node by node; every method returns the name of the tensor that it makes."""

    def __init__(self, shape: tuple[int, ...] = SHAPE, *, seed: int = 0) -> None:
        self.shape, self.rng = shape, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def constant(self, value: Array) -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name, **attributes))
        return f"{name}.out"

    def pair(self, x: str, scale: Any, *, zero: int = 0, dtype: Any = np.int8, axis: int | None = None) -> str:
        """QuantizeLinear and DequantizeLinear."""
        real = np.asarray(scale, np.float32)
        more = [self.constant(real), self.constant(np.full(real.shape, zero, dtype))]
        attributes = {} if axis is None else {"axis": axis}
        return self.node(
            "DequantizeLinear", [self.node("QuantizeLinear", [x, *more], **attributes), *more], **attributes
        )

    def weights(self, shape: Sequence[int], scale: Any, *, dtype: Any = np.int8, axis: int = 0) -> str:
        """Integers of the model behind a DequantizeLinear; `axis` is that of several scales."""
        limit = 100 if dtype in (np.int8, np.uint8) else 2000
        low = 0 if dtype == np.uint8 else -limit
        values = self.rng.integers(low, limit + 1, shape).astype(dtype)
        real = np.asarray(scale, np.float32)
        inputs = [self.constant(values), self.constant(real), self.constant(np.zeros(real.shape, dtype))]
        return self.node("DequantizeLinear", inputs, **({"axis": axis} if real.ndim else {}))

    def finish(self, path: Path, output: str, *, dynamic: bool = False, opset: int = 17) -> Path:
        shape: list[Any] = ["batch", *self.shape[1:]] if dynamic else list(self.shape)
        picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        kinds = {"ArgMax": TensorProto.INT64, "QuantizeLinear": TensorProto.INT8}
        kind = kinds.get(output.split(".")[0].rstrip("0123456789"), TensorProto.FLOAT)
        result = helper.make_tensor_value_info(output, kind, None)
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "foreign", [picture], [result], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
        return path

    def picture(self, seed: int) -> Array:
        return np.random.default_rng(seed).uniform(-3, 3, self.shape).astype(np.float32)


def network_of(path: Path) -> tuple[ForeignModel, Network]:
    model = read_foreign(path)
    return model, read_network(model)


def in_float(path: Path, picture: Array) -> Array:
    """What ONNX Runtime returns, in float."""
    return all_in_float(path, picture)[0]


def all_in_float(path: Path, picture: Array) -> list[Array]:
    """All outputs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": picture})
