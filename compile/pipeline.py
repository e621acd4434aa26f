"""The one place where the order of the passes lives.

ONNX of step 2   --import-->   Q/DQ graph   --INTEGER-->   int-inference module   --LOWERING-->   code for a target
ONNX of step 0/1 --import-->   float graph  --FOLDING-->   folded graph  --SCALES-->   calibrated ONNX, the new "step 2"

Before SCALES, compile/calibrate.py may run EqualizeChannels on a float graph, if it finds that it helps.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.ir.instrument import DumpIR

from compile.errors import CompileError
from compile.files import Parameters
from compile.importer import ImportedModel
from compile.kernels.instructions import Instructions
from compile.passes.add_peak import AddPeak
from compile.passes.add_post_processing import AddPostProcessing, Description
from compile.passes.fold_batch_norm import FoldBatchNorm
from compile.passes.join_post_processing import JoinPostProcessing
from compile.passes.lower_layers import LowerLayers
from compile.passes.merge_tasks import MergeTasks
from compile.passes.place_activation_scales import PlaceActivationScales
from compile.passes.place_weight_scales import PlaceWeightScales
from compile.passes.to_integer import ToInteger
from compile.targets import Target


@tvm.ir.instrument.pass_instrument
class WellFormed:
    """Checks the module after every pass.

    TVM's own instrument prints the whole module where one line says what is wrong.
    """

    def run_after_pass(self, module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
        try:
            relax.analysis.well_formed(module)
        except Exception as error:
            raise CompileError(f"pass {info.name} left a malformed module: {error}; report this model") from error


def run_passes(module: tvm.IRModule, passes: Sequence[tvm.ir.transform.Pass], dump: Path | None) -> tvm.IRModule:
    """Runs passes one after the other.

    After each the module is checked for well-formedness and, with `dump`, a folder, written there.
    """
    instruments: list[tvm.ir.instrument.PassInstrument] = [WellFormed()]
    if dump is not None:
        dump.mkdir(parents=True, exist_ok=True)
        instruments.append(DumpIR(str(dump)))
    with tvm.transform.PassContext(opt_level=3, instruments=instruments):
        return tvm.transform.Sequential(list(passes))(module)


def phase_folder(dump: Path | None, phase: str) -> Path | None:
    """Where the passes of a phase write their modules: a phase may run a pass that another has run."""
    return None if dump is None else dump / phase


def folding_passes(fold: FoldBatchNorm) -> list[tvm.ir.transform.Pass]:
    """From the import of step 0 or 1 to a graph without batch norms."""
    return [
        MergeTasks(),  # before a batch norm that several tasks compute would be folded again and again
        fold,
    ]


def scale_passes(
    parameters: Parameters,
    shift_of: Callable[[relax.Var], int],
    means: Mapping[str, NDArray[np.float64]] | None = None,
) -> list[tvm.ir.transform.Pass]:
    """From the folded graph to one in which every tensor has a scale."""
    return [
        PlaceActivationScales(parameters, shift_of),
        PlaceWeightScales(parameters, means),  # the bounds of a weight's scale depend on those of the activations
    ]


def integer_passes(
    parameters: Parameters,
    tensor_of_layer: dict[str, str],
    tasks: Sequence[Mapping[str, Any]],
    output_names: Sequence[str],
    description: Description,
) -> list[tvm.ir.transform.Pass]:
    """INTEGER. All but `tasks` and `output_names` are filled or changed by the passes."""
    return [
        MergeTasks(),  # before anything depends on a tensor being there once
        ToInteger(parameters, tensor_of_layer),
        AddPostProcessing(parameters, tasks, output_names, description),
    ]


def lowering_passes(parameters: Parameters, cpu: Instructions) -> list[tvm.ir.transform.Pass]:
    """LOWERING: layers become kernels, weights constants; the rest is TVM's way down to its virtual machine.

    KillAfterLastUse is not among them: the memory is planned, and 270 calls to forget tensors take 2 % of a run.
    """
    tensors = {name: tvm.runtime.tensor(value) for name, value in parameters.items()}
    return [
        LowerLayers(parameters, cpu),
        JoinPostProcessing(),  # once every other layer is where it stays: the tasks wait for the last one's heads
        AddPeak(cpu),
        relax.transform.BindParams("main", tensors),  # what no kernel has taken as a constant of its own
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.LowerAllocTensor(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]


def to_integer_module(
    imported: ImportedModel, tasks: Sequence[Mapping[str, Any]], dump: Path | None = None
) -> tuple[tvm.IRModule, Parameters, dict[str, str], Description]:
    """Q/DQ graph -> integer module with post-processing, and what belongs to it.

    That is its parameters, the tensor of step 2's ONNX for every layer, and the description of tasks and outputs.
    """
    parameters, tensor_of_layer, description = dict(imported.parameters), dict[str, str](), Description()
    passes = integer_passes(parameters, tensor_of_layer, tasks, imported.output_names, description)
    module = run_passes(imported.module, passes, phase_folder(dump, "3-integer"))
    return module, parameters, tensor_of_layer, description


def compile_module(
    module: tvm.IRModule, parameters: Parameters, target: Target, dump: Path | None = None
) -> relax.VMExecutable:
    """Integer module and weights -> code.

    The lowering passes run here, so that the code generator sees their result only.
    """
    lowered = run_passes(module, lowering_passes(parameters, target.instructions), phase_folder(dump, "4-lowering"))
    return relax.build(lowered, target.llvm(), relax_pipeline=tvm.transform.Sequential([]))
