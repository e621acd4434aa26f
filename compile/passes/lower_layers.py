"""LowerLayers: every layer of the integer graph becomes one kernel.

    Before   y = conv_layer_3(x, X.weight, X.bias, X.weight_shift)
             a Relax function, weights int8 OHWI constants
    After    y = call_tir(conv_layer_3, (x, packed X.weight, X.bias, ...))
             a PrimFunc, weights in the kernel's own order

Requires: parameters bound as constants. Ensures: one kernel call per layer, in the same order, so that the n-th kernel
call of a running model is the n-th layer; equal layers of equal shapes share a kernel; no layer function is left (else
the module would not build).
"""

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst

from compile.kernels.conv import ConvShape, conv_kernel, pack_weight
from compile.kernels.elementwise import elementwise_kernel
from compile.layers import ConvLayer, Layer, Shape, layer_of
from compile.rewrite import bindings_of, main_function, shape_of, typed_global


@tvm.transform.module_pass(opt_level=0, name="LowerLayers")
class LowerLayers:
    """See the module's text."""

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        main = module["main"]
        kernels = {var: function for var, function in module.functions.items() if isinstance(function, tirx.PrimFunc)}
        lowered: dict[relax.GlobalVar, relax.GlobalVar] = {}
        packed: dict[GenericConst, GenericConst] = {}
        bindings: list[tuple[relax.Var, relax.Expr]] = []
        for binding in bindings_of(main)[:-1]:
            value = binding.value
            if isinstance(value, relax.Call) and isinstance(value.op, relax.GlobalVar):
                layer, arguments = layer_of(module[value.op]), list(value.args)
                if value.op not in lowered:
                    kernel = kernel_of(layer, [shape_of(argument) for argument in arguments])
                    lowered[value.op] = typed_global(value.op.name_hint, kernel)
                    kernels[lowered[value.op]] = kernel
                if isinstance(layer, ConvLayer):
                    weight = arguments[1]
                    if weight not in packed:
                        packed[weight] = relax.const(pack_weight(weight.value.numpy(), layer.groups))
                    arguments[1] = packed[weight]
                value = relax.call_tir(lowered[value.op], arguments, out_ty=binding.var.ty)
            bindings.append((binding.var, value))
        outputs = list(bindings_of(main)[-1].value.fields)
        function = main_function(list(main.params), bindings, outputs, dict(main.attrs))
        return tvm.IRModule({relax.GlobalVar("main"): function, **kernels}, attrs=module.attrs)


def kernel_of(layer: Layer, shapes: list[Shape]) -> tirx.PrimFunc:
    """The kernel of a layer for arguments of these shapes."""
    if not isinstance(layer, ConvLayer):
        return elementwise_kernel(layer, shapes)
    (_, height, width, channels_in), (channels_out, kernel, _, _) = shapes[:2]
    return conv_kernel(layer, ConvShape(height, width, channels_in, channels_out, kernel))
