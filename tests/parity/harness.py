"""One network, all parties: numpy, torch, ONNX Runtime on the export, Relax's own operators, the compiled kernels.

Every party returns int8 tensors by the names of the integer module's layers. The float parties' values are scaled to
integers: one off the grid stays off it, and so is a difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
import tvm
from torch import nn
from tvm import relax

from compile.certify import certify, layer_calls
from compile.files import Parameters
from compile.importer import import_onnx, read_onnx
from compile.kernel_plan import layer_entries
from compile.layers import AddLayer, ConvLayer
from compile.passes.add_post_processing import Description
from compile.passes.merge_tasks import MergeTasks
from compile.passes.to_integer import ToInteger
from compile.pipeline import compile_module, integer_passes, run_passes
from compile.recorder import LayerRecorder
from compile.rewrite import bindings_of, main_function
from compile.targets import find_target
from compile.witness import LEVELS, Witness, post_processing
from quant.fake import ElementwiseAdd, QuantConv2d
from tests.parity.numpy_interpreter import Array, Values, interpret
from tests.parity.processor import FUSED_WITNESS
from train.export import export_onnx, network_image

NUMPY, TORCH, RELAX, COMPILED = "numpy", "torch", "relax", "compiled"
ONNX_LAYERS = "onnxruntime, every tensor"
NATIVE = "native"


class Parties:
    """`network`: folded, frozen and snapped, image float32 (1, 3, H, W) to a tuple of outputs; exported to `folder`.

    With `tasks`, a config's deployment entries, post-processing is part of it. `module` and `parameters` are the
    integer network, `layers` its layers by name.
    """

    def __init__(
        self,
        network: nn.Module,
        hw: tuple[int, int],
        output_names: Sequence[str],
        folder: Path,
        tasks: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.network = network
        self.tasks = tasks
        self.path = folder / "network.onnx"
        assert export_onnx(network, hw, output_names, self.path), "the network is not quantized, or not folded"
        self.description = Description()
        self.tensor_of_layer: dict[str, str] = {}
        self.module, self.parameters = self._to_integer(output_names)
        certify(self.module, self.parameters)
        self.layers = {call.name: call for call in layer_calls(self.module)}
        self.output_layers = [str(field.name) for field in _outputs(self.module)[: len(output_names)]]
        self.output_names = list(output_names)
        self._reference = _reference_vm(self.module, self.parameters)
        self._compiled = {NATIVE: self._compile(NATIVE)}

    def _to_integer(self, output_names: Sequence[str]) -> tuple[tvm.IRModule, Parameters]:
        imported = import_onnx(read_onnx(self.path))
        parameters = dict(imported.parameters)
        passes = integer_passes(parameters, self.tensor_of_layer, self.tasks, output_names, self.description)
        if not self.tasks:
            passes = [entry for entry in passes if isinstance(entry, MergeTasks | ToInteger)]
        return run_passes(imported.module, passes, None), parameters

    def _compile(self, target: str) -> relax.VirtualMachine:
        return _vm(compile_module(self.module, self.parameters, find_target(target)))

    def run(self, picture: Array, im_hw: tuple[int, int] | None = None) -> dict[str, Values]:
        """Values by party, then by layer, for a picture uint8 (1, H, W, 3)."""
        results = {NUMPY: self.numpy(picture, im_hw), TORCH: self.torch(picture)}
        results |= dict(self.onnxruntime(picture))
        results[RELAX], results[COMPILED] = self.relax(picture, im_hw), self.compiled(picture, im_hw)
        return results

    def numpy(self, picture: Array, im_hw: tuple[int, int] | None = None) -> Values:
        """By `quant.arith` and `quant.postprocess`."""
        values = interpret(self.module, self.parameters, picture)
        if im_hw is None:
            return values
        heads = {name: values[layer] for name, layer in zip(self.output_names, self.output_layers, strict=True)}
        shifts = {name: self._shift(layer) for name, layer in zip(self.output_names, self.output_layers, strict=True)}
        behind = post_processing(heads, shifts, self.tasks, im_hw)
        return values | {name: value for name, value in behind.items() if name not in values}  # a mask is a layer, too

    @torch.no_grad()
    def torch(self, picture: Array) -> Values:
        """Fake quantization: every convolution and addition, and the outputs."""
        found: dict[str, Any] = {}
        hooks = [module.register_forward_hook(_keeper(found, name)) for name, module in _observable(self.network)]
        outputs = self.network(torch.from_numpy(network_image(picture)))
        for hook in hooks:
            hook.remove()
        found |= dict(zip(self.output_layers, outputs, strict=True))
        wanted = {name for name, call in self.layers.items() if isinstance(call.layer, ConvLayer | AddLayer)}
        assert found.keys() >= wanted, f"nothing in torch is {', '.join(wanted - found.keys())}"
        return {name: self._integers(name, value.numpy().transpose(0, 2, 3, 1)) for name, value in found.items()}

    def onnxruntime(self, picture: Array) -> Iterator[tuple[str, Values]]:
        """The export's outputs at every level, in float and in fused int8 kernels; every tensor, nothing fused."""
        for level in LEVELS:
            values = Witness(self.path, level=level).run(picture)
            yield f"onnxruntime, {level}", self._named(values, self.output_names)
            if FUSED_WITNESS:
                fused = fused_session(self.path, level).run(self.output_names, {"image": network_image(picture)})
                values = {
                    name: value.transpose(0, 2, 3, 1) for name, value in zip(self.output_names, fused, strict=True)
                }
                yield f"onnxruntime, {level}, int8 kernels", self._named(values, self.output_names)
        tensors = list(self.tensor_of_layer.values())
        values = Witness(self.path, level="disabled", tensors=tensors).run(picture)
        yield ONNX_LAYERS, {name: self._integers(name, values[tensor]) for name, tensor in self.tensor_of_layer.items()}

    def relax(self, picture: Array, im_hw: tuple[int, int] | None = None) -> Values:
        """The integer module as TVM itself lowers its operators, every layer an output."""
        names = [*self._result_names(), *self.layers]
        return dict(zip(names, _call(self._reference, picture, im_hw), strict=True))

    def compiled(self, picture: Array, im_hw: tuple[int, int] | None = None, target: str = NATIVE) -> Values:
        """The kernels that ship: outputs, and the layers read while they run."""
        if target not in self._compiled:
            self._compiled[target] = self._compile(target)
        recorder = LayerRecorder(layer_entries(self.module, self.parameters))
        with recorder.watching(self._compiled[target]):
            outputs = _call(self._compiled[target], picture, im_hw)
        return recorder.values | dict(zip(self._result_names(), outputs, strict=True))

    def _result_names(self) -> list[str]:
        behind = [entry["name"] for entry in self.description.outputs[len(self.output_names) :]]
        return [*self.output_layers, *behind]

    def _named(self, values: Values, names: Sequence[str]) -> Values:
        pairs = zip(names, self.output_layers, strict=True)
        return {layer: self._integers(layer, values[name]) for name, layer in pairs}

    def _shift(self, layer: str) -> int:
        return int(self.layers[layer].layer.out_shift)  # type: ignore[union-attr]

    def _integers(self, layer: str, value: Array) -> Array:
        """q of a float party's q · 2^-shift; float64, so that what is no integer stays none."""
        return np.ldexp(value.astype(np.float64), self._shift(layer)) if value.dtype.kind == "f" else value


def _observable(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a network that end in a rounding, by the name that the integer module gives their layer."""
    for name, module in network.named_modules():
        if isinstance(module, QuantConv2d) and module.quantizer is not None:
            yield f"{name}.conv", module
        elif isinstance(module, ElementwiseAdd):
            yield name, module


def _keeper(found: dict[str, Any], name: str) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found[name] = output.value

    return keep


def fused_session(path: Path, level: str) -> ort.InferenceSession:
    """ONNX Runtime as it is by default: what it can fuse runs in its int8 kernels."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _reference_vm(module: tvm.IRModule, parameters: Parameters) -> relax.VirtualMachine:
    main = module["main"]
    bindings = [(binding.var, binding.value) for binding in bindings_of(main)[:-1]]
    outputs = [*_outputs(module), *(call.var for call in layer_calls(module))]
    functions = {var: function for var, function in module.functions.items() if var.name_hint != "main"}
    everything = main_function(list(main.params), bindings, outputs, dict(main.attrs))
    tensors = {name: tvm.runtime.tensor(value) for name, value in parameters.items()}
    bound = relax.transform.BindParams("main", tensors)(
        tvm.IRModule({relax.GlobalVar("main"): everything, **functions})
    )
    return _vm(relax.build(bound, tvm.target.Target({"kind": "llvm", "opt-level": 0})))


def _outputs(module: tvm.IRModule) -> list[relax.Var]:
    return list(bindings_of(module["main"])[-1].value.fields)


def _vm(executable: relax.VMExecutable) -> relax.VirtualMachine:
    return relax.VirtualMachine(executable, tvm.cpu())


def _call(vm: relax.VirtualMachine, picture: Array, im_hw: tuple[int, int] | None) -> list[Array]:
    inputs = [picture] if im_hw is None else [picture, np.array([im_hw], np.int32)]
    return [output.numpy() for output in vm["main"](*(tvm.runtime.tensor(entry) for entry in inputs))]
