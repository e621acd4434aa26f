"""Runs what the compiler makes: layers as Relax functions, their kernels, whole integer modules."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax, tirx

from compile.files import Parameters
from compile.importer import import_onnx
from compile.kernel_plan import kernel_of, packed_constants
from compile.kernels.instructions import Instructions
from compile.kernels.memory import Layout
from compile.layers import ConvLayer, Layer, QuantizePixels, Shape
from compile.passes.merge_tasks import MergeTasks
from compile.passes.to_integer import ToInteger
from compile.pipeline import compile_module, run_passes
from compile.storage import PICTURE, PLAIN, Storage, reads_plain
from compile.targets import find_target

Array = np.ndarray
Run = Callable[..., Array]
TARGET = find_target("native")


def tensors(arrays: Sequence[Array]) -> list[Any]:
    return [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays]


def plain_layers(cases: Sequence[tuple[Layer, Sequence[Shape]]]) -> list[Run]:
    """Each layer's Relax function, compiled by TVM's own pipeline, which knows nothing of our kernels."""
    functions = {}
    for index, (layer, shapes) in enumerate(cases):
        function = layer.build(shapes).with_attr("global_symbol", f"case_{index}")
        functions[relax.GlobalVar(f"case_{index}")] = function
    machine = relax.VirtualMachine(tvm.compile(tvm.IRModule(functions), TARGET.llvm()), tvm.cpu())

    def runner(name: str) -> Run:
        return lambda *arrays: machine[name](*tensors(arrays)).numpy()

    return [runner(f"case_{index}") for index in range(len(cases))]


def kernel_layers(
    cases: Sequence[tuple[Layer, Sequence[Shape]]],
    *,
    plain: bool = False,
    narrow: bool = False,
    cpu: Instructions = TARGET.instructions,
) -> list[Run]:
    """Each layer's kernel, between two others or, `plain`, writing what `main` returns.

    The arguments are those of the Relax function: values as they are, weights OHWI.
    """
    kernels = [KernelUnderTest(layer, shapes, cpu, plain=plain, narrow=narrow) for layer, shapes in cases]
    functions = {f"case_{index}": kernel.function(f"case_{index}") for index, kernel in enumerate(kernels)}
    library = tvm.compile(tvm.IRModule(functions), TARGET.llvm())
    return [kernel.runner(library[f"case_{index}"]) for index, kernel in enumerate(kernels)]


class KernelUnderTest:
    """A layer's kernel, fed with values and read back as values."""

    def __init__(self, layer: Layer, shapes: Sequence[Shape], cpu: Instructions, *, plain: bool, narrow: bool) -> None:
        self.cpu = cpu
        result = layer.build(shapes).ret_ty
        self.shape, self.dtype = tuple(int(size) for size in result.shape), str(result.dtype)
        self.layer, lies_plain = layer, reads_plain(layer)
        padding = layer.padding if isinstance(layer, ConvLayer) else 0
        self.sources = [PLAIN if lies_plain else Storage("uint8", 128, padding + 1) for _ in shapes]
        if isinstance(layer, QuantizePixels):
            self.sources = [PICTURE]
        offset = 0 if getattr(layer, "relu", False) else 128
        self.target = PLAIN if plain or lies_plain else Storage("uint8", offset, border=1)
        target = Layout(self.shape, self.target)
        self.kernel = kernel_of(layer, [tuple(shape) for shape in shapes], self.sources, target, narrow=narrow)

    def function(self, name: str) -> tirx.PrimFunc:
        return self.kernel.build(self.cpu).with_attr("global_symbol", name)

    def runner(self, function: Callable[..., None]) -> Run:
        def run(*arrays: Array) -> Array:
            inputs = list(arrays)
            constants = []
            if isinstance(self.layer, ConvLayer):
                constants = packed_constants(self.layer, self.kernel, self.cpu, *inputs[1:4])
                del inputs[1:4]
            if not isinstance(self.layer, QuantizePixels):
                inputs = [self.sources[0].stored(value) if self.sources[0] != PLAIN else value for value in inputs]
            stored = self.shape if self.target == PLAIN else self.target.shape(self.shape)
            # garbage in the result's memory, which the kernel has to overwrite
            garbage = np.full(stored, 77, self.dtype if self.target == PLAIN else self.target.dtype)
            (out,) = tensors([garbage])
            function(*tensors([inputs[0], *constants, *inputs[1:]]), out)
            values = self.target.values(out.numpy())
            if self.target != PLAIN:
                assert np.array_equal(self.target.stored(values), out.numpy()), "the border holds no real zeros"
            return values

        return run


def run_prim_func(function: tirx.PrimFunc) -> Callable[..., None]:
    """A PrimFunc as a function of numpy arrays; results are written into the last ones."""
    name = "function_under_test"
    library = tvm.compile(tvm.IRModule({name: function.with_attr("global_symbol", name)}), TARGET.llvm())

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
