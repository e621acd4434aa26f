"""Relax to ONNX: what was imported is written again, to the same values under the same names."""

import numpy as np
import onnx
import pytest

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
