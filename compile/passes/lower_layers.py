"""LowerLayers: the layers of the integer graph become kernels, most of them one each.

    Before   y = conv_layer_3(x, X.weight, X.bias, X.weight_shift)
             a Relax function; x int8 (1, H, W, C), weights int8 OHWI
    After    y = call_tir(conv_layer_5, (x, weights, first sums, constants of the epilogue))
             a PrimFunc; x as bytes with its border, constants in the kernel's own order

Ensures: the kernel calls are those of compile/kernel_plan.py in its order, so that the n-th kernel call of a running
model is the n-th of the plan; equal kernels are there once; no layer function is left (else the module would not
build). A tensor that `main` returns and a convolution reads lies in memory twice.
"""

from collections.abc import Iterable

import tvm
from tvm import relax, tirx

from compile.files import Parameters
from compile.graph import arguments_of
from compile.kernel_plan import AnyKernel, KernelCall, PlannedLayer, kernel_calls, packed_constants
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
        self.calls = kernel_calls(module, parameters)
        self.layers = {layer.call.var: layer for call in self.calls for layer in call.layers}
        self.kernels: dict[AnyKernel, tuple[relax.GlobalVar, tirx.PrimFunc]] = {}
        self.stored: dict[relax.Expr, relax.Expr] = {}  # a tensor, as its kernel leaves it
        self.copied: set[relax.Expr] = set()  # those of them that are there as main returns them, too
        self.bindings: list[tuple[relax.Var, relax.Expr]] = []

    def module(self) -> tvm.IRModule:
        main = self.source["main"]
        *bindings, last = bindings_of(main)
        waiting, computed = iter(self.calls), set[relax.Expr]()
        inside = {call.var for layer in self.layers.values() for call in layer.inside}
        for binding in bindings:
            while binding.var in self.layers and binding.var not in computed:
                call = next(waiting)
                self.lower(call)
                computed.update(layer.call.var for layer in call.layers)
            if binding.var not in self.layers and binding.var not in inside:
                self.make_plain(arguments_of(binding.value))
                self.bindings.append((binding.var, binding.value))
        self.make_plain(last.value.fields)
        function = main_function(list(main.params), self.bindings, list(last.value.fields), dict(main.attrs))
        others = {var: value for var, value in self.source.functions.items() if isinstance(value, tirx.PrimFunc)}
        functions = {relax.GlobalVar("main"): function, **others, **dict(self.kernels.values())}
        return tvm.IRModule(functions, attrs=self.source.attrs)

    def lower(self, call: KernelCall) -> None:
        """Appends a kernel call."""
        arguments = [argument for layer in call.layers for argument in self.arguments(layer)]
        results = [self.result(layer) for layer in call.layers]
        self.emit(results, call.function, call.kernel, arguments)

    def arguments(self, layer: PlannedLayer) -> list[relax.Expr]:
        """What the layer's kernel reads, in its order."""
        arguments = list(layer.call.arguments)
        constants: list[relax.Expr] = []
        if isinstance(layer.call.layer, ConvLayer) and isinstance(layer.kernel, ConvKernel):
            weights = [self.parameters[argument.name] for argument in arguments[1:4]]
            packed = packed_constants(layer.call.layer, layer.kernel, self.cpu, *weights)
            constants = [relax.const(value) for value in packed]
            del arguments[1:4]
        if reads_plain(layer.call.layer):
            self.make_plain(arguments)
            return arguments
        maps = [self.stored.get(x, x) for x in arguments]
        return [maps[0], *constants, *maps[1:]]

    def result(self, layer: PlannedLayer) -> relax.Var:
        """The variable that a layer's kernel defines."""
        var, storage = layer.call.var, layer.storage
        if storage != PLAIN:
            stored_type = relax.TensorType(storage.shape(shape_of(var)), storage.dtype)
            self.stored[var] = relax.DataflowVar(var.name, stored_type)
        return self.stored.get(var, var)

    def make_plain(self, tensors: Iterable[relax.Expr]) -> None:
        """Sees to it that these are there as `main` returns them: copies those that lie in memory in another way."""
        for var in tensors:
            if var in self.stored and var not in self.copied:
                shape = shape_of(var)
                copy = LayerKernel(None, (Layout(shape, self.layers[var].storage),), Layout(shape, PLAIN))
                self.emit([var], f"plain_copy_{len(self.kernels)}", copy, [self.stored[var]])
                self.copied.add(var)

    def emit(self, results: list[relax.Var], name: str, kernel: AnyKernel, arguments: list[relax.Expr]) -> None:
        """Appends a kernel call; the name is that of a kernel which is not there yet."""
        if kernel not in self.kernels:
            function = kernel.build(self.cpu)
            self.kernels[kernel] = (typed_global(name, function), function)
        types = [result.ty for result in results]
        call = relax.call_tir(self.kernels[kernel][0], arguments, out_ty=types if len(types) > 1 else types[0])
        if len(results) == 1:
            self.bindings.append((results[0], call))
            return
        together = relax.DataflowVar(f"{results[0].name} and others", relax.TupleType(types))
        self.bindings.append((together, call))
        self.bindings += [(result, relax.TupleGetItem(together, index)) for index, result in enumerate(results)]
