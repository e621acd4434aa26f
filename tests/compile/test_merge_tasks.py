"""What two tasks compute alike is computed once, and nothing else is."""

import numpy as np
import onnx
import pytest
import tvm

from compile.errors import CompileError
from compile.importer import import_onnx
from compile.passes.merge_tasks import MergeTasks
from compile.pipeline import run_passes
from compile.rewrite import bindings_of, operator_name
from tests.compile.engines import integer_module, run_integer
from tests.compile.models import ModelBuilder, random_picture, run_onnx

HW = (16, 24)
TASKS = ("det_a", "seg_b", "seg_c")


def shared_part(b: ModelBuilder) -> str:
    """Four convolutions, a sum and a concat."""
    stem = b.unit("backbone.stem", b.image(), 8, stride=2, relu=True, shift=5)
    main = b.conv("backbone.main", stem, 8, groups=2)
    block = b.sum("backbone.block", main, stem, shift=5)
    joined = b.concat("neck.joined", [b.unit("neck.side", block, 4, shift=4), block], shift=4)
    return b.unit("neck.out", joined, 6, kernel=1, shift=4)


def model(copies: bool, quantized: bool = True) -> onnx.ModelProto:
    """Three tasks, each with its own copy of the shared part (its parameters are one), or all behind one."""
    b = ModelBuilder(HW, quantized=quantized)
    feature = "" if copies else shared_part(b)
    outputs = {}
    for task in TASKS:
        if copies:
            b.copy = f"/{task}_model"
            feature = shared_part(b)
        outputs[task] = b.unit(f"{task}.head", feature, 5, shift=4)
    return b.finish(outputs)


def convolutions(module: tvm.IRModule) -> int:
    return sum(operator_name(binding.value) == "relax.nn.conv2d" for binding in bindings_of(module["main"]))


def merged(module: tvm.IRModule) -> tvm.IRModule:
    return run_passes(module, [MergeTasks()], None)


def test_the_shared_part_is_computed_once() -> None:
    imported = import_onnx(model(copies=True)).module
    assert convolutions(imported) == 3 * (4 + 1)
    once = merged(imported)
    assert convolutions(once) == 4 + 3
    assert len(bindings_of(once["main"])) == len(bindings_of(merged(import_onnx(model(copies=False)).module)["main"]))


def test_merging_changes_no_value() -> None:
    several = model(copies=True)
    module, parameters, _ = integer_module(several)
    picture = random_picture(HW, 1)
    for got, expected in zip(
        run_integer(module, parameters, picture), run_onnx(several, picture).values(), strict=True
    ):
        assert np.array_equal(got, np.ldexp(expected.transpose(0, 2, 3, 1), 4))


def test_what_differs_stays() -> None:
    """Another input, another weight, another stride: each a convolution of its own."""
    b = ModelBuilder(HW)
    x = b.image()
    other = b.unit("first", x, 3, shift=5)
    outputs = [b.unit("same", x, 4, shift=4)]
    b.copy = "/second"
    outputs += [b.unit("same", other, 4, shift=4), b.unit("own", x, 4, shift=4)]
    b.copy = "/third"
    outputs.append(b.unit("same", x, 4, shift=4, stride=2))
    imported = import_onnx(b.finish({f"output{index}": tensor for index, tensor in enumerate(outputs)})).module
    assert convolutions(merged(imported)) == convolutions(imported) == 5


def test_a_convolution_that_would_stay_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass checks what it promises, whatever TVM's elimination did."""
    nothing = tvm.transform.Sequential([])
    monkeypatch.setattr(tvm.relax.transform, "EliminateCommonSubexpr", lambda: nothing)
    with pytest.raises(CompileError, match="a convolution is computed twice on the same input"):
        merged(import_onnx(model(copies=True, quantized=False)).module)
