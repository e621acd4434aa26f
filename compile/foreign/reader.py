"""From a foreign ONNX graph to its integer network: a walk over the nodes, which knows what every tensor stands for.

Between a DequantizeLinear and a QuantizeLinear there is one op, or one with a ReLU or Clip behind it. What an op
becomes is in operators.py; here is what all of them need, and the two ops that carry scales.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.errors import CompileError
from compile.foreign.model import ForeignModel, attributes_of, name_of
from compile.foreign.network import NO_CLIP, Kind, Layer, Network, Output, Pair, Sum, Tensor
from compile.foreign.states import Floats, Largest, Open, Picture, Quantized, State, Weights
from quant.arith import INT8_MAX, INT8_MIN
from quant.errors import QuantError
from quant.fixed_point import multiplier, ratio

Shape = tuple[int, int, int, int]
Visitor = Callable[["Reader", onnx.NodeProto], State]
SAME = multiplier(Fraction(1))  # of a layer that keeps the scale; exact


class Reader:
    """See the module's text. `visitors` by op."""

    def __init__(self, model: ForeignModel, visitors: dict[str, Visitor]) -> None:
        self.model = model
        self.visitors = {
            "QuantizeLinear": quantize,
            "DequantizeLinear": dequantize,
            "Identity": lambda reader, node: reader.state(node, 0),
            **visitors,
        }
        self.states: dict[str, State] = {name: Floats(value) for name, value in model.constants.items()}
        self.states[model.input.name] = Picture()
        self.layers: list[Layer] = []
        self.input: Tensor | None = None

    def network(self) -> Network:
        """The whole graph as layers. Raises CompileError naming a node."""
        for node in self.model.nodes:
            try:
                self.states[node.output[0]] = self.visitors[node.op_type](self, node)
            except QuantError as error:
                raise self.model.error(node, str(error)) from error
            except (ArithmeticError, AssertionError, LookupError, ValueError) as error:
                raise self.model.error(node, f"it cannot be read ({error}); export the model again") from error
        outputs = tuple(self.output(entry.name) for entry in self.model.proto.graph.output)
        name = self.model.input.name
        if self.input is None:
            raise CompileError(f"{self.model.path}: nothing reads its input {name}; export it again")
        height, width = self.input.shape[1:3]
        return Network(name, (1, self.input.shape[3], height, width), self.input, tuple(self.layers), outputs)

    def output(self, name: str) -> Output:
        state, shape = self.states.get(name), self.model.shapes[name]
        wanted = onnx.TensorProto.INT64 if isinstance(state, Largest) else onnx.TensorProto.FLOAT
        declared = next(entry for entry in self.model.proto.graph.output if entry.name == name)
        if declared.type.tensor_type.elem_type not in (wanted, onnx.TensorProto.UNDEFINED):
            raise CompileError(f"{self.model.path}: output {name} holds integers; end it with a DequantizeLinear")
        if isinstance(state, Quantized | Largest):
            return Output(name, state.tensor.name, shape, isinstance(state, Largest))
        raise CompileError(
            f"{self.model.path}: output {name} is not quantized; end it with a QuantizeLinear and a DequantizeLinear"
        )

    def state(self, node: onnx.NodeProto, place: int) -> State:
        """Of an input of a node."""
        name = node.input[place]
        if name not in self.states:
            raise self.model.error(node, f"its input {name} is made by nothing")
        return self.states[name]

    def quantized(self, node: onnx.NodeProto, place: int = 0) -> Quantized:
        """An input that must be an int8 tensor. If `flat`, its values lie in another order here than in the ONNX."""
        state = self.state(node, place)
        if not isinstance(state, Quantized):
            raise self.model.error(
                node,
                f"its input {node.input[place]} is not quantized; put a QuantizeLinear and a DequantizeLinear there",
            )
        return state

    def tensor(self, node: onnx.NodeProto, place: int = 0) -> Tensor:
        """An input that must be an int8 tensor and no flattened map."""
        state = self.quantized(node, place)
        if state.flat and state.tensor.shape[1:3] != (1, 1):
            raise self.model.error(node, "the values of a flattened map lie in another order here; flatten after it")
        return state.tensor

    def constant(self, node: onnx.NodeProto, place: int) -> NDArray[Any] | None:
        """An input that must be known, its exact real numbers where it is dequantized; None where there is none."""
        if place >= len(node.input) or not node.input[place]:
            return None
        state = self.state(node, place)
        if isinstance(state, Weights):
            return state.integers * by_axis(state.scale, state.axis, state.integers.ndim).astype(np.float64)
        if not isinstance(state, Floats):
            raise self.model.error(node, f"its input {node.input[place]} is computed; it must be a constant")
        return state.values

    def shape(self, name: str) -> Shape:
        """NHWC of a tensor; that of a vector (1, C) is (1, 1, 1, C)."""
        sizes = self.model.shapes[name]
        if len(sizes) == 2:
            return sizes[0], 1, 1, sizes[1]
        if len(sizes) != 4:
            raise CompileError(f"{self.model.path}: tensor {name} has the shape {sizes}; only pictures and vectors go")
        return sizes[0], sizes[2], sizes[3], sizes[1]

    def agreed(self, node: onnx.NodeProto, shape: Shape) -> Shape:
        """What a node makes, NHWC, of its input. CompileError where the ONNX says another of its output."""
        stated = self.shape(node.output[0])
        if stated != shape:
            raise self.model.error(node, f"it makes {shape} (NHWC), the model says {stated}; export it again")
        return shape

    def emit(self, kind: Kind, inputs: tuple[str, ...], output: Tensor, node: str) -> Quantized:
        """Appends a layer. What it makes must have as many values as the ONNX says of its name."""
        shape = self.model.shapes.get(output.name)
        if shape is not None and math.prod(output.shape) != math.prod(shape):
            raise QuantError(f"it makes {math.prod(shape)} values, its inputs lead to {math.prod(output.shape)}")
        self.layers.append(Layer(kind, inputs, output, node))
        return Quantized(output)

    def scale(self, node: onnx.NodeProto) -> NDArray[np.float32]:
        """Of a Q or DQ node, its type and zero point checked: one, or one for each entry of its axis."""
        value, zero = self.constant(node, 1), self.constant(node, 2)
        assert value is not None
        dtype = self.integer_type(node, zero)
        if dtype == np.uint8:
            raise self.model.error(node, "its type is uint8; quantize to int8, symmetric (zero points 0)")
        if dtype != np.int8 and not (dtype == np.int32 and node.op_type == "DequantizeLinear"):
            raise self.model.error(
                node, f"its type is {dtype}; quantize to int8, and store biases as int32 behind a DequantizeLinear"
            )
        if value.ndim > 1 or attributes_of(node).get("block_size", 0):
            raise self.model.error(node, "scales of blocks have no form here; use one, or one for each channel")
        if zero is not None and zero.any():
            raise self.model.error(
                node,
                f"its zero point is {zero.ravel()[zero.ravel() != 0][0]}; quantize symmetrically, with zero points 0",
            )
        if value.dtype != np.float32 or not (np.isfinite(value).all() and (value > 0).all()):
            raise self.model.error(node, "its scale is no positive float32 number; quantize again")
        return value

    def integer_type(self, node: onnx.NodeProto, zero: NDArray[Any] | None) -> Any:
        """What a Q node makes, or a DQ node reads."""
        if zero is not None:
            return zero.dtype
        if node.op_type == "DequantizeLinear":
            state = self.state(node, 0)
            return state.values.dtype if isinstance(state, Floats) else np.dtype(np.int8)
        declared = attributes_of(node).get("output_dtype", onnx.TensorProto.UNDEFINED)
        return np.dtype(np.int8 if declared == onnx.TensorProto.INT8 else np.uint8)  # uint8 is ONNX's default


def quantize(reader: Reader, node: onnx.NodeProto) -> State:
    """Closes what is open; or a change of scale; or the picture's or a weight's own quantization."""
    state, scale = reader.state(node, 0), reader.scale(node)
    name = node.output[0]
    if isinstance(state, Floats):
        axis = int(attributes_of(node).get("axis", 1))
        rounded = np.rint(state.values / by_axis(scale, axis, state.values.ndim))
        return Weights(np.clip(rounded, INT8_MIN, INT8_MAX).astype(np.int8), scale, axis)
    if scale.size != 1:
        raise reader.model.error(node, "an activation has one scale, this node has one for each channel")
    real = float(scale.ravel()[0])
    if isinstance(state, Picture):
        return picture(reader, node, real)
    if isinstance(state, Open):
        return close(reader, state, Tensor(name, state.shape, real))
    if isinstance(state, Quantized):
        if state.tensor.scale == real:
            return state
        found = multiplier(ratio(state.tensor.scale, over=real))
        output = Tensor(name, state.tensor.shape, real)
        closed = reader.emit(Sum((found.m,), found.n), (state.tensor.name,), output, name_of(node))
        return replace(closed, flat=state.flat)
    raise reader.model.error(node, f"it quantizes {node.input[0]}, which is quantized already or an index")


def clamp_to(clip: Pair) -> Sum:
    """A layer that does nothing else."""
    return Sum((SAME.m,), SAME.n, clip)


def close(reader: Reader, state: Open, output: Tensor) -> Quantized:
    """The layer that was open, and a clamp behind it where it is cut and does not clip itself."""
    clip = state.clip(output.scale)
    if state.clips or clip == NO_CLIP:
        closed = reader.emit(state.make(output.scale, clip), state.inputs, output, state.node)
    else:
        whole = replace(output, name=f"{output.name}:whole")
        reader.emit(state.make(output.scale, NO_CLIP), state.inputs, whole, state.node)
        closed = reader.emit(clamp_to(clip), (whole.name,), output, state.node)
    return replace(closed, flat=state.flat)


def picture(reader: Reader, node: onnx.NodeProto, scale: float) -> Quantized:
    """The input of the network."""
    if reader.input is not None and reader.input.scale != scale:
        raise reader.model.error(node, "the picture is quantized twice, with two scales; quantize it once")
    if reader.input is None:
        reader.input = Tensor(node.output[0], reader.shape(node.input[0]), scale)
    return Quantized(reader.input)


def dequantize(reader: Reader, node: onnx.NodeProto) -> State:
    """Of a tensor nothing changes; integers of the model become weights."""
    state, scale = reader.state(node, 0), reader.scale(node)
    axis = int(attributes_of(node).get("axis", 1))
    if isinstance(state, Floats):
        if state.values.dtype not in (np.int8, np.int32):
            raise reader.model.error(
                node, f"{node.input[0]} is {state.values.dtype}; store weights as int8 and biases as int32"
            )
        return Weights(state.values, scale, axis)
    if isinstance(state, Quantized):
        same = scale.size == 1 and float(scale.ravel()[0]) == state.tensor.scale
    elif isinstance(state, Weights):
        same = np.array_equal(state.scale, scale) and (scale.size == 1 or state.axis == axis)
    else:
        raise reader.model.error(node, f"its input {node.input[0]} is not quantized")
    if not same:
        raise reader.model.error(node, "it has another scale than the QuantizeLinear before it; use one for both")
    return state


def by_axis(scale: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    """A scale for each entry of an axis, in a shape that broadcasts."""
    if scale.size == 1:
        return scale.reshape(())
    shape = [1] * rank
    shape[axis] = scale.size
    return scale.reshape(shape)
