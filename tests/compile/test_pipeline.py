"""The order of the passes, the check after each, the dump of each."""

import re
from pathlib import Path

import onnx
import pytest
import tvm
from tvm import relax

from compile.build import main
from compile.errors import CompileError
from compile.importer import import_onnx
from compile.kernels.instructions import PLAIN128
from compile.passes.add_post_processing import Description
from compile.passes.fold_batch_norm import FoldBatchNorm
from compile.pipeline import folding_passes, integer_passes, lowering_passes, run_passes, scale_passes
from compile.rewrite import bindings_of, main_function
from quant.errors import QuantError
from tests.compile.models import ModelBuilder
from tests.compile.toy import ALL, Run, toy_network


@pytest.fixture
def module() -> tvm.IRModule:
    b = ModelBuilder((8, 10))
    return import_onnx(b.finish({"out": b.unit("stem", b.image(), 4, shift=4)})).module


def names(passes: list[tvm.ir.transform.Pass]) -> list[str]:
    return [str(step.info.name) for step in passes]


def test_the_order() -> None:
    assert names(folding_passes(FoldBatchNorm({}))) == ["MergeTasks", "FoldBatchNorm"]
    assert names(scale_passes({}, lambda _: 0)) == ["PlaceActivationScales", "PlaceWeightScales"]
    assert names(integer_passes({}, {}, [], [], Description())) == ["MergeTasks", "ToInteger", "AddPostProcessing"]
    assert names(lowering_passes({}, PLAIN128))[:4] == ["LowerLayers", "JoinPostProcessing", "AddPeak", "BindParams"]


def without_its_first_binding(module: tvm.IRModule) -> tvm.IRModule:
    """Something reads what nothing makes any more."""
    main = module["main"]
    *bindings, last = [(binding.var, binding.value) for binding in bindings_of(main)]
    function = main_function(list(main.params), bindings[1:], list(last[1].fields), {"num_input": 1})
    return tvm.IRModule({relax.GlobalVar("main"): function})


@tvm.transform.module_pass(opt_level=0, name="Breaks")
class Breaks:
    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        return without_its_first_binding(module)


@tvm.transform.module_pass(opt_level=0, name="Refuses")
class Refuses:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def transform_module(self, _module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        raise self.error


def test_a_malformed_module_is_reported_by_the_pass_that_left_it(module: tvm.IRModule) -> None:
    same = relax.transform.DeadCodeElimination()
    with pytest.raises(CompileError, match=r"^pass Breaks left a malformed module: .*; report this model$"):
        run_passes(module, [same, Breaks(), same], None)
    run_passes(module, [same, same], None)


@pytest.mark.parametrize("error", [CompileError("stem: no"), QuantError("bias: too large")])
def test_errors_keep_type_and_text_on_the_way_through_tvm(module: tvm.IRModule, error: Exception) -> None:
    with pytest.raises(type(error), match=rf"^{error}$"):
        run_passes(module, [Refuses(error)], None)


def test_every_pass_is_dumped_in_its_order(toy_config: Path, pictures: Path, tmp_path: Path) -> None:
    run = Run(toy_config, tmp_path, pictures)
    onnx.save(toy_network(quantized=False, batch_norms=ALL), str(tmp_path / "with-bn-export-last.onnx"))
    dump = tmp_path / "dump" / "of this build"
    arguments = ["--source", "with-bn", "--calib-images", str(pictures), "--dump", str(dump)]
    assert main(run.build_arguments(*arguments)) == 0
    passes = {
        "1-folding": names(folding_passes(FoldBatchNorm({}))),
        "2-scales": names(scale_passes({}, lambda _: 0)),
        "3-integer": names(integer_passes({}, {}, [], [], Description())),
        "4-lowering": names(lowering_passes({}, PLAIN128)),
    }
    assert sorted(path.name for path in dump.iterdir()) == list(passes)
    for phase, wanted in passes.items():
        files = sorted((dump / phase).iterdir())
        numbers = [int(re.match(r"(\d{3})_", path.name).group(1)) for path in files]  # type: ignore[union-attr]
        assert numbers == list(range(len(files)))
        order = [path.stem[4:] for path in files if path.stem[4:] in wanted]
        assert order == wanted
        assert all("def main(" in path.read_text() for path in files if path.stem[4:] in wanted)
    integer = next((dump / "3-integer").glob("*_ToInteger.py")).read_text()
    assert "R.quantize" not in integer
    assert "conv_layer" in integer
