"""Runs what the compiler makes: layers as Relax functions, their kernels, whole integer modules."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax, tirx

from compile.files import Parameters
from compile.importer import import_onnx
from compile.kernels.conv import pack_weight
from compile.layers import ConvLayer, Layer, Shape
from compile.passes.lower_layers import kernel_of
from compile.passes.merge_tasks import MergeTasks
from compile.passes.to_integer import ToInteger
from compile.pipeline import compile_module, run_passes
from compile.targets import describe_target, llvm_target

Array = np.ndarray
Run = Callable[..., Array]
TARGET = llvm_target(describe_target("native"))


def tensors(arrays: Sequence[Array]) -> list[Any]:
    return [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays]


def plain_layers(cases: Sequence[tuple[Layer, Sequence[Shape]]]) -> list[Run]:
    """Each layer's Relax function, compiled by TVM's own pipeline, which knows nothing of our kernels."""
    functions = {}
    for index, (layer, shapes) in enumerate(cases):
        function = layer.build(shapes).with_attr("global_symbol", f"case_{index}")
        functions[relax.GlobalVar(f"case_{index}")] = function
    machine = relax.VirtualMachine(tvm.compile(tvm.IRModule(functions), TARGET), tvm.cpu())

    def runner(name: str) -> Run:
        return lambda *arrays: machine[name](*tensors(arrays)).numpy()

    return [runner(f"case_{index}") for index in range(len(cases))]


def kernel_layers(cases: Sequence[tuple[Layer, Sequence[Shape]]]) -> list[Run]:
    """Each layer's kernel; the arguments are those of the Relax function, weights still OHWI."""
    functions = {}
    for index, (layer, shapes) in enumerate(cases):
        kernel = kernel_of(layer, list(shapes)).with_attr("global_symbol", f"case_{index}")
        functions[f"case_{index}"] = kernel
    library = tvm.compile(tvm.IRModule(functions), TARGET)

    def runner(index: int, layer: Layer, shapes: Sequence[Shape]) -> Run:
        result = layer.build(shapes).ret_ty
        shape, dtype = tuple(int(size) for size in result.shape), str(result.dtype)

        def run(*arrays: Array) -> Array:
            inputs = list(arrays)
            if isinstance(layer, ConvLayer):
                inputs[1] = pack_weight(inputs[1], layer.groups)
            # garbage in the result's memory, which the kernel has to overwrite
            (out,) = tensors([np.full(shape, 77, dtype)])
            library[f"case_{index}"](*tensors(inputs), out)
            return out.numpy()

        return run

    return [runner(index, *case) for index, case in enumerate(cases)]


def run_prim_func(function: tirx.PrimFunc) -> Callable[..., None]:
    """A PrimFunc as a function of numpy arrays; results are written into the last ones."""
    name = "function_under_test"
    library = tvm.compile(tvm.IRModule({name: function.with_attr("global_symbol", name)}), TARGET)

    def run(*arrays: Array) -> None:
        arguments = tensors(arrays)
        library[name](*arguments)
        for array, argument in zip(arrays, arguments, strict=True):
            array[...] = argument.numpy()

    return run


def integer_module(model: onnx.ModelProto) -> tuple[tvm.IRModule, Parameters, dict[str, str]]:
    """Import, MergeTasks, ToInteger: module, its parameters, and the ONNX tensor of each layer."""
    imported = import_onnx(model)
    parameters, tensor_of_layer = dict(imported.parameters), dict[str, str]()
    module = run_passes(imported.module, [MergeTasks(), ToInteger(parameters, tensor_of_layer)], None)
    return module, parameters, tensor_of_layer


def run_integer(module: tvm.IRModule, parameters: Parameters, picture: Array) -> list[Array]:
    """All outputs of an integer module, int8 NHWC, through the kernels."""
    machine = relax.VirtualMachine(compile_module(module, parameters, TARGET), tvm.cpu())
    return [output.numpy() for output in machine["main"](*tensors([picture]))]
