"""Relax to ONNX: what was imported is written again, to the same values under the same names."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compile.errors import CompileError
from compile.importer import import_onnx
from compile.onnx_writer import to_onnx
from tests.compile.models import random_picture, run_onnx
from tests.compile.toy import ALL, HW, toy_network


def written_again(model: onnx.ModelProto) -> onnx.ModelProto:
    imported = import_onnx(model)
    return to_onnx(imported.module, imported.parameters, imported.output_names)


def test_values_and_names_survive() -> None:
    model = toy_network()
    again = written_again(model)
    onnx.checker.check_model(again, full_check=True)
    for seed in range(2):
        picture = random_picture(HW, seed)
        got = run_onnx(again, picture)
        expected = run_onnx(model, picture)
        assert list(got) == list(expected)
        assert all(np.array_equal(got[name], value) for name, value in expected.items())
    weights = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    written = {entry.name: onnx.numpy_helper.to_array(entry) for entry in again.graph.initializer}
    assert all(np.array_equal(written[name], value) for name, value in weights.items())
    kinds = ("Conv", "Relu", "Add", "Resize", "Slice", "Concat", "AveragePool", "QuantizeLinear")
    tensors = [{n.output[0] for n in m.graph.node if n.op_type in kinds} for m in (model, again)]
    assert tensors[0] == tensors[1]


def test_writing_is_a_fixed_point() -> None:
    once = written_again(toy_network(quantized=False))
    assert written_again(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_a_batch_norm_cannot_be_written() -> None:
    with pytest.raises(CompileError, match=r"relax\.nn\.batch_norm cannot be written as ONNX; fold it first"):
        written_again(toy_network(batch_norms=ALL))


def one_node(kind: str, inputs: dict[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    """A picture through a convolution and one node."""
    names = ["mixed", *inputs] if kind != "Resize" else ["mixed", "", *inputs]
    nodes = [
        helper.make_node("Conv", ["image", "mix"], ["mixed"], kernel_shape=[1, 1]),
        helper.make_node(kind, names, ["found"], **attributes),
    ]
    picture = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, (1, 3, *HW))
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in {"mix": MIX, **inputs}.items()]
    found = helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, (1, None, None, None))
    graph = helper.make_graph(nodes, "one", [picture], [found], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


WEIGHTS = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
MIX = np.random.default_rng(1).normal(size=(3, 3, 1, 1)).astype(np.float32)
BOUNDS = {name: np.array(value, np.int64) for name, value in {"a": [1, 2], "b": [9, 30], "axes": [2, 3]}.items()}


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Conv", {"w": WEIGHTS}, {"dilations": [2, 3], "pads": [1, 0, 2, 3], "strides": [2, 1]}),
        ("Slice", BOUNDS, {}),
        ("Slice", {**BOUNDS, "steps": np.array([2, 3], np.int64)}, {}),
        ("AveragePool", {}, {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 0, 0]}),
        ("AveragePool", {}, {"kernel_shape": [2, 2], "pads": [0, 1, 0, 0], "count_include_pad": 1}),
        ("AveragePool", {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ],
)
def test_what_an_operator_says_is_written(kind: str, inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> None:
    model, picture = one_node(kind, inputs, **attributes), random_picture(HW, 1)
    expected, got = (run_onnx(entry, picture)["found"] for entry in (model, written_again(model)))
    assert expected.shape == got.shape
    assert np.array_equal(expected, got)


def test_another_resize_is_refused_by_name() -> None:
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    with pytest.raises(CompileError, match="found: a Resize of linear, half_pixel"):
        written_again(one_node("Resize", scales, mode="linear"))
