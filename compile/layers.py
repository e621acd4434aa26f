"""The layers of the integer graph: one private Relax function each, in plain integer operators.

The body is the definition; the attributes (`kind` and the fields of the spec) are what a kernel generator reads.
`build` makes the function for inputs of the given shapes, in the order in which the class's text lists them.
Activations are int8 NHWC, weights int8 OHWI, biases and weight shifts int32 per output channel. real = q * 2^-shift
throughout.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from tvm import relax
from tvm.relax import op

from compile.integer_ops import int32, left_align, relu, requantize, widen
from quant.arith import INPUT_SHIFT, PAD_PIXEL

Shape = tuple[int, ...]


def tensor(name: str, shape: Sequence[int], dtype: str) -> relax.Var:
    """A parameter of a layer's function."""
    return relax.Var(name, relax.TensorType(tuple(shape), dtype))


@dataclass(frozen=True)
class QuantizePixels:
    """picture uint8 (1, H, W, 3) -> int8: q = p - 128, on shift 7."""

    kind: ClassVar[str] = "quantize_pixels"
    out_shift: int = INPUT_SHIFT

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        (shape,) = shapes
        picture = tensor("picture", shape, "uint8")
        value = op.astype(op.subtract(op.astype(picture, "int32"), int32(PAD_PIXEL)), "int8")
        return finished(self, [picture], value)


@dataclass(frozen=True)
class ConvLayer:
    """x, weight, bias, weight_shift [, residual] -> int8.

    Convolution, + bias, + residual aligned, ReLU, requantization.
    """

    kind: ClassVar[str] = "conv_layer"
    in_shift: int
    out_shift: int
    stride: int
    padding: int
    groups: int
    relu: bool
    residual_shift: int | None = None

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        """Bias and weight_shift have one element per output channel of the weight, whatever `shapes` says."""
        x = tensor("x", shapes[0], "int8")
        weight = tensor("weight", shapes[1], "int8")
        bias, weight_shift = (tensor(name, shapes[1][:1], "int32") for name in ("bias", "weight_shift"))
        parameters = [x, weight, bias, weight_shift]
        accumulator: relax.Expr = op.nn.conv2d(
            x,
            weight,
            strides=self.stride,
            padding=self.padding,
            groups=self.groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
            out_dtype="int32",
        )
        accumulator = op.add(accumulator, bias)
        grid: relax.Expr = op.add(weight_shift, int32(self.in_shift))
        if self.residual_shift is not None:
            residual = tensor("residual", shapes[4], "int8")
            parameters.append(residual)
            conv_grid, residual_grid = grid, int32(self.residual_shift)
            grid = op.maximum(conv_grid, residual_grid)
            accumulator = op.add(
                left_align(accumulator, conv_grid, grid), left_align(widen(residual), residual_grid, grid)
            )
        if self.relu:
            accumulator = relu(accumulator)
        return finished(self, parameters, requantize(accumulator, grid, self.out_shift))


@dataclass(frozen=True)
class AddLayer:
    """a, b -> int8: both shifted left to the finer grid, added, ReLU, requantized."""

    kind: ClassVar[str] = "add_layer"
    a_shift: int
    b_shift: int
    out_shift: int
    relu: bool

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        a, b = (tensor(name, shape, "int8") for name, shape in zip("ab", shapes, strict=True))
        grid = max(self.a_shift, self.b_shift)
        value: relax.Expr = op.add(
            left_align(widen(a), int32(self.a_shift), int32(grid)),
            left_align(widen(b), int32(self.b_shift), int32(grid)),
        )
        if self.relu:
            value = relu(value)
        return finished(self, [a, b], requantize(value, int32(grid), self.out_shift))


@dataclass(frozen=True)
class Upsample2x:
    """x int8 (1, h, w, C) -> int8 (1, height, width, C) on the same shift.

    Nearest, then cropped at the bottom and the right.
    """

    kind: ClassVar[str] = "upsample2x"
    height: int
    width: int
    out_shift: int

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        (shape,) = shapes
        x = tensor("x", shape, "int8")
        doubled = op.repeat(op.repeat(x, 2, axis=1), 2, axis=2)
        value = op.strided_slice(doubled, axes=[1, 2], begin=[0, 0], end=[self.height, self.width])
        return finished(self, [x], value)


@dataclass(frozen=True)
class ConcatLayer:
    """tensors int8 (1, H, W, C_i), each on its own shift -> int8 (1, H, W, sum C_i) on `out_shift`.

    With one input it is a change of shift.
    """

    kind: ClassVar[str] = "concat_layer"
    in_shifts: tuple[int, ...]
    out_shift: int

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        inputs = [tensor(f"x{index}", shape, "int8") for index, shape in enumerate(shapes)]
        parts = [
            requantize(widen(x), int32(shift), self.out_shift) for x, shift in zip(inputs, self.in_shifts, strict=True)
        ]
        return finished(self, inputs, op.concat(parts, axis=3) if len(parts) > 1 else parts[0])


@dataclass(frozen=True)
class AveragePool:
    """x int8 (1, H, W, C) -> int8: means of kernel x kernel values.

    Their sum is on shift in_shift + log2(kernel^2), so it requantizes like an accumulator. Only powers of two as
    kernel: for other sizes ONNX Runtime's float division is not the exact rational (docs/integer.md).
    """

    kind: ClassVar[str] = "average_pool"
    kernel: int
    stride: int
    in_shift: int
    out_shift: int

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        (shape,) = shapes
        x = tensor("x", shape, "int8")
        channels = shape[3]
        ones = op.ones((channels, self.kernel, self.kernel, 1), "int8")
        total = op.nn.conv2d(
            x, ones, strides=self.stride, groups=channels, data_layout="NHWC", kernel_layout="OHWI", out_dtype="int32"
        )
        return finished(self, [x], requantize(total, int32(self.sum_shift), self.out_shift))

    @property
    def sum_shift(self) -> int:
        """Shift of the sum of kernel x kernel values, read as their mean."""
        return self.in_shift + 2 * (self.kernel.bit_length() - 1)


@dataclass(frozen=True)
class ChannelArgmax:
    """logits int8 (1, H, W, C) of one shift -> class map uint8 (1, H, W); the lowest index wins a tie."""

    kind: ClassVar[str] = "channel_argmax"

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        (shape,) = shapes
        logits = tensor("logits", shape, "int8")
        # TVM's argmax starts from the type's least value, which a map of -128s would never exceed
        return finished(self, [logits], op.astype(op.argmax(widen(logits), axis=3), "uint8"))


@dataclass(frozen=True)
class FlattenMaps:
    """maps int8 (1, h, w, anchors * fields) of all strides -> int8 (N, fields).

    One row an anchor, map by map, row by row.
    """

    kind: ClassVar[str] = "flatten_maps"
    fields: int

    def build(self, shapes: Sequence[Shape]) -> relax.Function:
        maps = [tensor(f"map{index}", shape, "int8") for index, shape in enumerate(shapes)]
        rows = [op.reshape(value, (-1, self.fields)) for value in maps]
        return finished(self, maps, op.concat(rows, axis=0) if len(rows) > 1 else rows[0])


Layer = QuantizePixels | ConvLayer | AddLayer | Upsample2x | ConcatLayer | AveragePool | ChannelArgmax | FlattenMaps
LAYERS: dict[str, type[Layer]] = {
    layer.kind: layer
    for layer in (QuantizePixels, ConvLayer, AddLayer, Upsample2x, ConcatLayer, AveragePool, ChannelArgmax, FlattenMaps)
}


def finished(layer: Layer, parameters: list[relax.Var], value: relax.Expr) -> relax.Function:
    """Closes a layer's function: normal form, private, settings as attributes."""
    builder = relax.BlockBuilder()
    with builder.function("layer", parameters, private=True):
        with builder.dataflow():
            output = builder.emit_output(value)
        builder.emit_func_output(output)
    settings = {name: value for name, value in asdict(layer).items() if value is not None}
    return builder.get()["layer"].with_attrs({"kind": layer.kind, **settings})


def layer_of(function: relax.Function) -> Layer:
    """Reads the settings of a layer's function back; the inverse of `build`."""
    attributes = dict(function.attrs)
    spec = LAYERS[str(attributes["kind"])]
    names = [field.name for field in fields(spec) if field.name in attributes]
    settings: dict[str, Any] = {name: plain(attributes[name]) for name in names}
    return spec(**settings)


def plain(value: object) -> object:
    """An attribute as a Python value."""
    if isinstance(value, (bool, int, str)):
        return value
    return tuple(int(item) for item in value)  # type: ignore[attr-defined]
