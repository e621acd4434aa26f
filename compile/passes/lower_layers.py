"""LowerLayers: every layer of the integer graph becomes one kernel.

    Before   y = conv_layer_3(x, X.weight, X.bias, X.weight_shift)
             a Relax function; x int8 (1, H, W, C), weights int8 OHWI
    After    y = call_tir(conv_layer_5, (x, weights, first sums, constants of the epilogue))
             a PrimFunc; x as bytes with its border, constants in the kernel's own order

Ensures: one kernel call per layer, in the same order, so that the n-th kernel call of a running model is the n-th
layer; equal kernels are there once; no layer function is left (else the module would not build). A tensor that `main`
returns and a convolution reads lies in memory twice.
"""

from collections.abc import Iterable

import tvm
from tvm import relax, tirx

from compile.files import Parameters
from compile.graph import arguments_of
from compile.kernel_plan import Kernel, KernelCall, kernel_calls, packed_constants
from compile.kernels.conv import ConvKernel
from compile.kernels.elementwise import LayerKernel
from compile.kernels.instructions import Instructions
from compile.kernels.memory import Layout
from compile.layers import ConvLayer
from compile.rewrite import bindings_of, main_function, shape_of, typed_global
from compile.storage import PLAIN, reads_plain


@tvm.transform.module_pass(opt_level=0, name="LowerLayers")
class LowerLayers:
    """See the module's text. `parameters` are those of the integer module."""

    def __init__(self, parameters: Parameters, cpu: Instructions) -> None:
        self.parameters = parameters
        self.cpu = cpu

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        return _Lowering(module, self.parameters, self.cpu).module()


class _Lowering:
    def __init__(self, module: tvm.IRModule, parameters: Parameters, cpu: Instructions) -> None:
        self.source, self.parameters, self.cpu = module, parameters, cpu
        self.calls = {call.layer.var: call for call in kernel_calls(module, parameters)}
        self.kernels: dict[Kernel, tuple[relax.GlobalVar, tirx.PrimFunc]] = {}
        self.stored: dict[relax.Expr, relax.Expr] = {}  # a tensor, as its kernel leaves it
        self.copied: set[relax.Expr] = set()  # those of them that are there as main returns them, too
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []

    def module(self) -> tvm.IRModule:
        main = self.source["main"]
        *bindings, last = bindings_of(main)
        for binding in bindings:
            if binding.var in self.calls:
                self.lower(self.calls[binding.var])
            else:
                self.make_plain(arguments_of(binding.value))
                self.bindings.append((binding.var, binding.value))
        self.make_plain(last.value.fields)
        function = main_function(list(main.params), self.bindings, list(last.value.fields), dict(main.attrs))
        others = {var: value for var, value in self.source.functions.items() if isinstance(value, tirx.PrimFunc)}
        functions = {relax.GlobalVar("main"): function, **others, **dict(self.kernels.values())}
        return tvm.IRModule(functions, attrs=self.source.attrs)

    def lower(self, call: KernelCall) -> None:
        """Appends the kernel call of a layer."""
        var, storage, layer = call.layer.var, call.storage, call.layer.layer
        arguments = list(call.layer.arguments)
        constants: list[relax.Expr] = []
        if isinstance(layer, ConvLayer) and isinstance(call.kernel, ConvKernel):
            weights = [self.parameters[argument.name] for argument in arguments[1:4]]
            constants = [relax.const(value) for value in packed_constants(layer, call.kernel, self.cpu, *weights)]
            del arguments[1:4]
        if reads_plain(layer):
            self.make_plain(arguments)
            maps = arguments
        else:
            maps = [self.stored.get(x, x) for x in arguments]
        if storage != PLAIN:
            stored_type = relax.TensorType(storage.shape(shape_of(var)), storage.dtype)
            self.stored[var] = relax.DataflowVar(var.name, stored_type)
        self.emit(self.stored.get(var, var), call.function, call.kernel, [maps[0], *constants, *maps[1:]])

    def make_plain(self, tensors: Iterable[relax.Expr]) -> None:
        """Sees to it that these are there as `main` returns them: copies those that lie in memory in another way."""
        for var in tensors:
            if var in self.stored and var not in self.copied:
                shape = shape_of(var)
                copy = LayerKernel(None, (Layout(shape, self.calls[var].storage),), Layout(shape, PLAIN))
                self.emit(var, f"plain_copy_{len(self.kernels)}", copy, [self.stored[var]])
                self.copied.add(var)

    def emit(self, var: relax.Var, name: str, kernel: Kernel, arguments: list[relax.Expr]) -> None:
        """Appends a kernel call; the name is that of a kernel which is not there yet."""
        if kernel not in self.kernels:
            function = kernel.build(self.cpu)
            self.kernels[kernel] = (typed_global(name, function), function)
        self.bindings.append((var, relax.call_tir(self.kernels[kernel][0], arguments, out_ty=var.ty)))
