"""LowerLayers: every layer of the integer graph becomes one kernel.

    Before   y = conv_layer_3(x, X.weight, X.bias, X.weight_shift)           a Relax function, weights int8 OHWI constants
    After    y = call_tir(conv_layer_3, (x, packed X.weight, X.bias, ...))   a PrimFunc, weights in the kernel's own order

Requires: parameters bound as constants. Ensures: one kernel call per layer, in the same order, so that the n-th kernel call of a running
model is the n-th layer; equal layers of equal shapes share a kernel; no layer function is left (else the module would not build).
"""

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst

from compile.kernels.conv import ConvShape, conv_kernel, pack_weight
from compile.kernels.elementwise import elementwise_kernel
from compile.layers import ConvLayer, Layer, Shape, layer_of
from compile.rewrite import bindings_of, substitute


@tvm.transform.module_pass(opt_level=0, name="LowerLayers")
class LowerLayers:
    """See the module's text."""

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        main = module["main"]
        layers = {var: f for var, f in module.functions.items() if isinstance(f, relax.Function) and var.name_hint != "main"}
        kernels = {var.name_hint: relax.GlobalVar(var.name_hint) for var in layers}
        functions: dict[relax.GlobalVar, tirx.PrimFunc] = {
            var: f for var, f in module.functions.items() if isinstance(f, tirx.PrimFunc)
        }
        replacement: dict[relax.Var, relax.Expr] = {}
        builder = relax.BlockBuilder()
        packed: dict[GenericConst, GenericConst] = {}
        with builder.function("main", list(main.params), attrs=dict(main.attrs)):
            with builder.dataflow():
                *bindings, last = bindings_of(main)
                for binding in bindings:
                    value = substitute(binding.value, replacement)
                    if isinstance(value, relax.Call) and value.op in layers:
                        layer = layer_of(layers[value.op])
                        kernel, arguments = kernels[value.op.name_hint], list(value.args)
                        if kernel not in functions:
                            functions[kernel] = kernel_of(layer, [shape_of(argument) for argument in arguments])
                        if isinstance(layer, ConvLayer):
                            weight = arguments[1]
                            if weight not in packed:
                                packed[weight] = relax.const(pack_weight(weight.value.numpy(), layer.groups))
                            arguments[1] = packed[weight]
                        value = relax.call_tir(kernel, arguments, out_ty=binding.var.ty)
                    replacement[binding.var] = builder.emit(value, name_hint=binding.var.name)
                output = builder.emit_output(substitute(last.value, replacement))
            builder.emit_func_output(output)
        lowered = builder.get()
        return tvm.IRModule({**dict(lowered.functions.items()), **functions}, attrs=module.attrs)


def shape_of(expr: relax.Expr) -> Shape:
    return tuple(int(size) for size in expr.ty.shape)


def kernel_of(layer: Layer, shapes: list[Shape]) -> tirx.PrimFunc:
    """The kernel of a layer for arguments of these shapes."""
    if not isinstance(layer, ConvLayer):
        return elementwise_kernel(layer, shapes)
    (_, height, width, channels_in), (channels_out, kernel, _, _) = shapes[:2]
    return conv_kernel(layer, ConvShape(height, width, channels_in, channels_out, kernel))
