"""LowerLayers: every layer of the integer graph becomes one kernel.

    Before   y = conv_layer_3(x, X.weight, X.bias, X.weight_shift)
             a Relax function; x int8 (1, H, W, C), weights int8 OHWI
    After    y = call_tir(conv_layer_5, (x, X.weight, X.bias, X.scale))
             a PrimFunc; x as bytes with its border, constants in the kernel's own order

Ensures: one kernel call per layer, in the same order, so that the n-th kernel call of a running model is the n-th
layer; equal kernels are there once; no layer function is left (else the module would not build). A tensor that `main`
returns and a convolution reads lies in memory twice.
"""

import tvm
from tvm import relax, tirx

from compile.files import Parameters
from compile.kernel_plan import Kernel, KernelCall, kernel_calls, packed_constants, reads_plain
from compile.kernels.conv import ConvKernel
from compile.kernels.elementwise import LayerKernel
from compile.kernels.instructions import Instructions
from compile.kernels.memory import Layout
from compile.layers import ConvLayer
from compile.rewrite import bindings_of, main_function, shape_of, substitute, typed_global
from compile.storage import PLAIN


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
        self.calls = {call.layer.var: call for call in kernel_calls(module)}
        self.kernels: dict[str, tuple[relax.GlobalVar, tirx.PrimFunc]] = {}
        self.stored: dict[relax.Expr, relax.Expr] = {}  # a tensor, as its kernel leaves it
        self.plain: dict[relax.Expr, relax.Expr] = {}  # the same as main returns it
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []

    def module(self) -> tvm.IRModule:
        main = self.source["main"]
        *bindings, last = bindings_of(main)
        for binding in bindings:
            if binding.var in self.calls:
                self.lower(self.calls[binding.var])
            else:
                self.bindings.append((binding.var, substitute(binding.value, self.plain)))
        outputs = [self.as_plain(output) for output in last.value.fields]
        function = main_function(list(main.params), self.bindings, outputs, dict(main.attrs))
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
        maps = [self.as_plain(x) if reads_plain(layer) else self.stored.get(x, x) for x in arguments]
        if storage != PLAIN:
            stored_type = relax.TensorType(storage.shape(shape_of(var)), storage.dtype)
            self.stored[var] = relax.DataflowVar(var.name, stored_type)
        self.emit(self.stored.get(var, var), call.function, call.kernel, [maps[0], *constants, *maps[1:]])

    def as_plain(self, var: relax.Expr) -> relax.Expr:
        """The tensor as `main` returns it, copied if it lies in memory in another way."""
        if var not in self.stored:
            return var
        if var not in self.plain:
            copy = LayerKernel(None, (Layout(shape_of(var), self.calls[var].storage),), Layout(shape_of(var), PLAIN))
            self.plain[var] = var
            self.emit(var, f"plain_copy_{len(self.plain)}", copy, [self.stored[var]])
        return self.plain[var]

    def emit(self, var: relax.Var, name: str, kernel: Kernel, arguments: list[relax.Expr]) -> None:
        if name not in self.kernels:
            function = kernel.build(self.cpu)
            self.kernels[name] = (typed_global(name, function), function)
        self.bindings.append((var, relax.call_tir(self.kernels[name][0], arguments, out_ty=var.ty)))
