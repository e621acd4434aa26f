"""ToInteger: the Q/DQ float graph becomes the integer graph.

    Before (NCHW)                                    After (NHWC)
    x = dequantize(quantize(image, 2^-7))            x = quantize_pixels(picture)
    w = dequantize(quantize(X.weight, 2^-sw))        y = conv_layer(x, X.weight, X.bias, X.weight_shift, r)
    a = relu(conv2d(x, w) + X.bias + r)              y: int8, q * 2^-sy
    y = dequantize(quantize(a, 2^-sy))

Requires: BN folded; every quantize with a power-of-two scale and zero point 0; every convolution, resize, concat and
pool reads quantized tensors; of an add's operands at most one is a convolution's bare result. Ensures: `main` calls
layers of compile/layers.py only, on int8 tensors between them (a leftover raises and names the tensor). Weights become
int8 OHWI, biases and weight shifts int32, by name. The arithmetic is docs/integer.md's: quantization of weights and
biases comes from quant/params.py.
"""

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from compile.errors import CompileError
from compile.files import Parameters
from compile.graph import arguments_of
from compile.importer import constant_value
from compile.layer_emitter import LayerEmitter
from compile.layers import AddLayer, AveragePool, ConcatLayer, ConvLayer, Layer, QuantizePixels, Upsample2x
from compile.rewrite import NEAREST_FLOOR, bindings_of, constant_tuple, operator_name, resize_rule, shape_of
from compile.states import Concatenation, Convolution, Image, Int8, Pool, State, Sum, Upsampled, Weight
from quant.arith import INPUT_SHIFT, WEIGHT_MAX
from quant.errors import QuantError
from quant.params import quantize_bias, quantize_weight, shift_of


@tvm.transform.module_pass(opt_level=0, name="ToInteger")
class ToInteger:
    """See the module's text. `parameters` are the weights by name; they are replaced by the integer ones in place."""

    def __init__(self, parameters: Parameters, tensor_of_layer: dict[str, str]) -> None:
        self.parameters = parameters
        self.tensor_of_layer = tensor_of_layer  # filled: layer -> name of the same tensor in step 2's ONNX

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        main = module["main"]
        walk = _Walk(self.parameters, main)
        for binding in bindings_of(main)[:-1]:
            walk.visit(binding.var, binding.value)
        outputs = [walk.int8(field) for field in bindings_of(main)[-1].value.fields]
        self.parameters.clear()
        self.parameters.update(walk.emitter.parameters)
        self.tensor_of_layer.update(walk.tensor_of_layer)
        return walk.emitter.finish([output.var for output in outputs])


class _Walk:
    """Goes through `main` once, holding for every float variable what it stands for."""

    def __init__(self, parameters: Parameters, main: relax.Function) -> None:
        self.parameters = parameters
        image = main.params[0]
        _, channels, height, width = shape_of(image)
        self.emitter = LayerEmitter((1, height, width, channels))
        self.states: dict[relax.Var, State] = {image: Image()}
        self.tensor_of_layer: dict[str, str] = {}
        self.upsampled: dict[relax.Var, Int8] = {}
        self.bias_names: dict[relax.Var, str] = {}

    def visit(self, var: relax.Var, value: relax.Expr) -> None:
        name = operator_name(value)
        visitor = _VISITORS.get(name)
        if visitor is None:
            weights = [str(argument.name) for argument in arguments_of(value) if argument.name in self.parameters]
            raise CompileError(
                f"{(weights or [var.name])[0]}: {name or type(value).__name__} has no integer form; export the model "
                "without it"
            )
        state = visitor(self, var, value)
        if state is not None:
            self.states[var] = state

    def state(self, expr: relax.Expr) -> State | None:
        return self.states.get(expr) if isinstance(expr, relax.Var) else None

    def int8(self, expr: relax.Expr) -> Int8:
        """The int8 tensor behind a float variable; an upsampling is written down at its first use."""
        state = self.state(expr)
        if isinstance(state, Upsampled):
            if expr not in self.upsampled:
                layer = Upsample2x(state.height, state.width, state.x.shift)
                self.upsampled[expr] = self.emit(layer, [state.x.var], layer_name(expr.name), expr.name)
            return self.upsampled[expr]
        if not isinstance(state, Int8):
            raise CompileError(
                f"{getattr(expr, 'name', expr)}: a float tensor where an int8 one is needed; quantize it in the model "
                "(every convolution's input, every output, and all but one operand of an add)"
            )
        return state

    def emit(self, layer: Layer, inputs: list[relax.Expr], name: str, tensor: str) -> Int8:
        """Appends a layer that equals `tensor` of step 2's ONNX."""
        var = self.emitter.emit(layer, inputs, name)
        self.tensor_of_layer[str(var.name)] = tensor
        # only layers of the post-processing have no out_shift, and no float graph holds one
        return Int8(var, layer.out_shift)  # type: ignore[union-attr]

    def visit_quantize(self, var: relax.Var, call: relax.Call) -> State:
        data, shift = call.args[0], self.shift_of_scale(var, call)
        if isinstance(data, relax.Var) and data.name in self.parameters:
            return self.weight(var, call, shift)
        if shift.size != 1:
            raise CompileError(
                f"{var.name}: an activation has one scale per tensor, here are {shift.size}; export it per tensor"
            )
        return self.close(var, data, int(shift.reshape(())))

    def weight(self, var: relax.Var, call: relax.Call, shift: np.ndarray) -> Weight:
        """The parameter that a quantize or dequantize reads, one shift for each output channel."""
        name = str(call.args[0].name)
        if shift.size > 1 and int(call.attrs.axis) != 0:
            raise CompileError(
                f"{var.name}: scales of {name} along axis {call.attrs.axis}; export one per output channel, axis 0"
            )
        return Weight(name, np.broadcast_to(shift, self.parameters[name].shape[:1]))

    def shift_of_scale(self, var: relax.Var, call: relax.Call) -> np.ndarray:
        """Shifts of a (de)quantize's scales. Raises CompileError for what is no power of two or not symmetric."""
        values, zeros = (constant_value(argument, self.parameters) for argument in call.args[1:3])
        if values is None or zeros is None or np.any(zeros != 0) or zeros.dtype == np.uint8:
            raise CompileError(
                f"{var.name}: scale and zero point must be constants and the zero point 0; export symmetric int8"
            )
        try:
            return np.asarray([shift_of(float(value)) for value in values.reshape(-1)]).reshape(values.shape)
        except QuantError as error:
            raise CompileError(f"{var.name}: {error}") from error

    def close(self, var: relax.Var, data: relax.Expr, shift: int) -> Int8:
        """A quantize of an activation ends the layer that is open behind it."""
        state, name, tensor = self.state(data), layer_name(var.name), str(var.name)
        if isinstance(state, Upsampled):
            state = self.int8(data)
        if isinstance(state, Image):
            if shift != INPUT_SHIFT:
                raise CompileError(f"{var.name}: the picture's shift is {shift}, it must be {INPUT_SHIFT}")
            return self.emit(QuantizePixels(), [self.emitter.picture], name, tensor)
        if isinstance(state, Convolution):
            return self.close_convolution(state, shift, tensor)
        if isinstance(state, Sum):
            layer = AddLayer(state.a.shift, state.b.shift, shift, state.relu)
            return self.emit(layer, [state.a.var, state.b.var], name, tensor)
        if isinstance(state, Pool):
            pool = AveragePool(state.kernel, state.stride, state.x.shift, shift)
            return self.emit(pool, [state.x.var], name, tensor)
        if isinstance(state, Int8):
            if state.shift == shift:
                return state
            state = Concatenation((state,))
        if isinstance(state, Concatenation):
            concat = ConcatLayer(tuple(x.shift for x in state.inputs), shift)
            return self.emit(concat, [x.var for x in state.inputs], name, tensor)
        raise CompileError(f"{var.name}: a quantize of something that is no layer's result; export the model again")

    def close_convolution(self, conv: Convolution, shift: int, tensor: str) -> Int8:
        """Emits a convolution with its integer weights. Raises CompileError for a bias off the grid."""
        weight_name = conv.weight.name
        name = weight_name.removesuffix(".weight")
        value = self.parameters[weight_name]
        if not np.all(np.rint(np.ldexp(value.T, conv.weight.shift)) >= -WEIGHT_MAX):
            raise CompileError(
                f"{weight_name}: a weight of -128 (or no number); clamp to ±{WEIGHT_MAX} steps before exporting"
            )
        weight = quantize_weight(value, conv.weight.shift)
        bias = np.zeros(len(value)) if conv.bias is None else self.parameters[conv.bias].astype(np.float64)
        accumulator_shift = conv.x.shift + conv.weight.shift
        try:
            integer_bias = quantize_bias(bias, accumulator_shift)
        except QuantError as error:
            raise CompileError(f"{conv.bias}: {error}") from error
        if np.any(integer_bias != np.ldexp(bias, accumulator_shift)):
            raise CompileError(
                f"{conv.bias}: a bias off the accumulator's grid (docs/integer.md, section 4); export a frozen model"
            )
        arguments: list[relax.Expr] = [
            conv.x.var,
            self.emitter.parameter(f"{name}.weight", np.ascontiguousarray(weight.transpose(0, 2, 3, 1))),
            self.emitter.parameter(f"{name}.bias", integer_bias.astype(np.int32)),
            self.emitter.parameter(f"{name}.weight_shift", np.asarray(conv.weight.shift, np.int32)),
        ]
        if conv.residual is not None:
            arguments.append(conv.residual.var)
        layer = ConvLayer(
            in_shift=conv.x.shift,
            out_shift=shift,
            stride=conv.stride,
            padding=conv.padding,
            groups=conv.groups,
            relu=conv.relu,
            residual_shift=None if conv.residual is None else conv.residual.shift,
        )
        return self.emit(layer, arguments, name, tensor)

    def visit_dequantize(self, var: relax.Var, call: relax.Call) -> State | None:
        """The float twin of what its quantize was; or a weight (int8) or bias (int32) that is stored as integers."""
        data, shift = call.args[0], self.shift_of_scale(var, call)
        if data.name not in self.parameters:
            state = self.state(data)
            if isinstance(state, (Int8, Weight)) and np.any(shift != state.shift):
                raise CompileError(f"{var.name}: another scale than in its quantize; export both with one scale")
            return state
        integers = self.parameters[data.name]
        if integers.dtype not in (np.int8, np.int32):
            raise CompileError(
                f"{var.name}: dequantizes {data.name}, which is {integers.dtype} or dequantized elsewhere with another "
                "scale; store weights as int8 and biases as int32, each with one scale"
            )
        column = shift.reshape(-1, *[1] * (integers.ndim - 1)) if shift.size > 1 else shift
        self.parameters[data.name] = np.ldexp(integers.astype(np.float64), -column)
        if integers.dtype == np.int8:
            return self.weight(var, call, shift)
        self.bias_names[var] = data.name
        return None

    def visit_conv2d(self, var: relax.Var, call: relax.Call) -> State:
        weight = self.state(call.args[1])
        if not isinstance(weight, Weight):
            raise CompileError(
                f"{getattr(call.args[1], 'name', var.name)}: a float weight of a convolution; every weight needs a "
                "scale before ToInteger"
            )
        name, attributes = weight.name, call.attrs  # the result is anonymous where a bias follows
        one_value(name, shape_of(call.args[1])[2:])
        stride, padding = one_value(name, attributes.strides), one_value(name, attributes.padding)
        if one_value(name, attributes.dilation) != 1:
            raise CompileError(f"{name}: dilated convolutions have no integer form; use dilation 1")
        return Convolution(self.int8(call.args[0]), weight, stride, padding, int(attributes.groups))

    def visit_reshape(self, var: relax.Var, call: relax.Call) -> None:
        """Of a bias, to (1, C, 1, 1): its add finds it in `bias_names`."""
        bias = call.args[0]
        if bias not in self.bias_names and bias.name not in self.parameters:
            raise CompileError(
                f"{var.name}: a reshape of an activation has no integer form; export the model without it"
            )
        self.bias_names[var] = self.bias_names.get(bias, bias.name)

    def visit_add(self, var: relax.Var, call: relax.Call) -> State:
        a, b = call.args
        if isinstance(b, relax.Var) and b in self.bias_names:
            conv = self.state(a)
            if not isinstance(conv, Convolution) or conv.bias is not None or conv.residual is not None:
                raise CompileError(
                    f"{var.name}: a bias that is not a convolution's own; export it as the convolution's third input"
                )
            return replace(conv, bias=self.bias_names[b])
        if shape_of(a) != shape_of(b):
            raise CompileError(
                f"{var.name}: only tensors of one shape can be added, not {shape_of(a)} and {shape_of(b)}"
            )
        for main, other in ((a, b), (b, a)):
            conv = self.state(main)
            if isinstance(conv, Convolution):
                if conv.residual is not None or conv.relu:
                    raise CompileError(
                        f"{var.name}: only the bare result of a convolution may be added unquantized; quantize it first"
                    )
                return replace(conv, residual=self.int8(other))
        return Sum(self.int8(a), self.int8(b))

    def visit_relu(self, var: relax.Var, call: relax.Call) -> State:
        state = self.state(call.args[0])
        if not isinstance(state, (Convolution, Sum)):
            raise CompileError(f"{var.name}: a ReLU must stand before its layer's quantize; move it there")
        return replace(state, relu=True)

    def visit_resize2d(self, var: relax.Var, call: relax.Call) -> State:
        x = self.int8(call.args[0])
        height, width = shape_of(var)[2:]
        doubled = [2 * size for size in shape_of(x.var)[1:3]]
        rule = resize_rule(call)
        if [height, width] != doubled or rule != NEAREST_FLOOR:
            raise CompileError(
                f"{var.name}: only nearest upsampling by 2 (asymmetric, floor) has an integer form, not {rule}"
            )
        return Upsampled(x, height, width)

    def visit_strided_slice(self, var: relax.Var, call: relax.Call) -> State:
        state = self.state(call.args[0])
        height, width = shape_of(var)[2:]
        starts, steps = constant_tuple(call.args[2]), constant_tuple(call.args[4])
        whole = not any(starts) and set(steps) <= {1}
        if not isinstance(state, Upsampled) or not whole or shape_of(var)[1] != shape_of(state.x.var)[3]:
            raise CompileError(
                f"{var.name}: only the crop of an upsampled map at its bottom and right has an integer form"
            )
        return Upsampled(state.x, height, width)

    def visit_concat(self, var: relax.Var, call: relax.Call) -> State:
        if int(call.attrs.axis) not in (1, -3):
            raise CompileError(f"{var.name}: only a concat over channels has an integer form")
        return Concatenation(tuple(self.int8(field) for field in call.args[0].fields))

    def visit_avg_pool2d(self, var: relax.Var, call: relax.Call) -> State:
        kernel, stride = (one_value(str(var.name), sizes) for sizes in (call.attrs.pool_size, call.attrs.strides))
        if kernel & (kernel - 1) or any(int(size) for size in call.attrs.padding) or bool(call.attrs.ceil_mode):
            raise CompileError(
                f"{var.name}: average pooling needs a power of two as its kernel and no padding to be exact"
            )
        return Pool(self.int8(call.args[0]), kernel, stride)


_VISITORS = {
    "relax.quantize": _Walk.visit_quantize,
    "relax.dequantize": _Walk.visit_dequantize,
    "relax.nn.conv2d": _Walk.visit_conv2d,
    "relax.reshape": _Walk.visit_reshape,
    "relax.add": _Walk.visit_add,
    "relax.nn.relu": _Walk.visit_relu,
    "relax.image.resize2d": _Walk.visit_resize2d,
    "relax.strided_slice": _Walk.visit_strided_slice,
    "relax.concat": _Walk.visit_concat,
    "relax.nn.avg_pool2d": _Walk.visit_avg_pool2d,
}


def one_value(name: str, values: object) -> int:
    """The common value of a kernel, stride, padding or the like. Raises CompileError where the axes differ."""
    distinct = {int(value) for value in values}  # type: ignore[attr-defined]
    if len(distinct) != 1:
        raise CompileError(
            f"{name}: {sorted(distinct)} differ between the axes; only equal values have an integer form"
        )
    return distinct.pop()


def layer_name(tensor: str) -> str:
    """A layer without weights is named after its quantizer's tensor.

    `/backbone/stages.1/stages.1.0/merge/quantizer/QuantizeLinear_output_0` -> `backbone.stages.1.0.merge`.
    """
    scopes: list[str] = []
    for scope in tensor.strip("/").split("/"):
        if scopes and scope.startswith(f"{scopes[-1]}."):  # what a Sequential holds repeats its name
            scopes.pop()
        scopes.append(scope)
    parts = [part for part in ".".join(scopes).split(".") if part]
    while len(parts) > 1 and (parts[-1] in ("quantizer", "q") or parts[-1].startswith("QuantizeLinear")):
        parts.pop()
    return ".".join(parts)
