"""The detection tasks' post-processing in one function is that of each."""

from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from tvm import relax

from compile.ops.detection import detection_function, level_table
from compile.passes.join_post_processing import NAME, JoinPostProcessing, joined
from compile.rewrite import bindings_of, main_function, typed_global
from quant.postprocess import detection_post_processing, exp_table, pack_hardware
from tests.compile.engines import integer_module, run_prim_func
from tests.compile.test_detection_op import IM_HW, SIZES, VARIANTS, anchor_total, draw
from tests.compile.toy import toy_network

TASKS = ("default", "few rows", "negative input_shift")


def test_each_task_has_its_own_boxes() -> None:
    functions, inputs, results, expected = [], [], [], []
    for seed, name in enumerate(TASKS):
        attributes = VARIANTS[name]
        functions.append(detection_function(attributes, anchor_total(attributes)))
        scores, deltas = draw(seed, None, 40)
        flat = [np.concatenate([m.reshape(-1, fields) for m in maps]) for maps, fields in ((scores, 3), (deltas, 4))]
        tables = [exp_table(attributes.input_shift, attributes.exp_output_shift)]
        tables += [np.array(attributes.anchors, np.int32), level_table(attributes, SIZES)]
        inputs += [*flat, *tables, IM_HW]
        capacity = attributes.nms_output_bbox_num
        results += [np.full((capacity, 6), 99, np.int32), np.full(16 * (capacity + 1), 99, np.uint8)]
        rows = detection_post_processing(scores, deltas, attributes, IM_HW)
        expected += [rows, pack_hardware(rows)]
    run_prim_func(joined(functions))(*inputs, *results)
    assert all(np.array_equal(found, wanted) for found, wanted in zip(results, expected, strict=True))
    assert all((rows[:, 5] >= 0).any() for rows in expected[::2]), "a comparison of empty lists says nothing"


def module_with(names: tuple[str, ...]) -> Any:
    """`main` calling the ops of these tasks, and returning their results."""
    bindings: list[Any] = []
    outputs: list[Any] = []
    functions, parameters = {}, []
    for task, name in enumerate(names):
        function = detection_function(VARIANTS[name], anchor_total(VARIANTS[name]))
        var = typed_global(f"detection_{task}", function)
        functions[var] = function
        own = [
            relax.Var(f"input_{task}_{number}", relax.TensorType([int(n) for n in entry.ty.shape], str(entry.ty.dtype)))
            for number, entry in enumerate(function.params[:-2])
        ]
        parameters += own
        types = [
            relax.TensorType([int(n) for n in entry.ty.shape], str(entry.ty.dtype)) for entry in function.params[-2:]
        ]
        both = relax.DataflowVar(f"both_{task}", relax.TupleType(types))
        bindings.append((both, relax.call_tir(var, own, types)))
        for index, kind in enumerate(types):
            outputs.append(relax.DataflowVar(f"result_{task}_{index}", kind))
            bindings.append((outputs[-1], relax.TupleGetItem(both, index)))
    main = main_function(parameters, bindings, outputs, {"num_input": len(parameters)})
    return tvm.IRModule({relax.GlobalVar("main"): main, **functions})


def test_one_call_and_the_same_results() -> None:
    before = module_with(TASKS)
    after = JoinPostProcessing()(before)
    relax.analysis.well_formed(after)  # raises where it is not
    assert [var.name_hint for var in after.functions if var.name_hint != "main"] == [NAME]
    *bindings, last = bindings_of(after["main"])
    calls = [entry for entry in bindings if isinstance(entry.value, relax.Call)]
    assert len(calls) == 1
    items = {entry.var: int(entry.value.index) for entry in bindings if isinstance(entry.value, relax.TupleGetItem)}
    assert [items[field] for field in last.value.fields] == list(range(2 * len(TASKS)))


@pytest.fixture(scope="module")
def toy() -> onnx.ModelProto:
    return toy_network()


def test_a_module_without_detection_stays_as_it_is(toy: onnx.ModelProto) -> None:
    module = integer_module(toy)[0]
    assert JoinPostProcessing()(module).same_as(module)


def test_one_task_stays_as_it_is() -> None:
    module = module_with(TASKS[:1])
    assert JoinPostProcessing()(module).same_as(module)
