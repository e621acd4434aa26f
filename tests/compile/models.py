"""Tiny ONNX models, node by node, as the export of `train` writes them: float or Q/DQ, with and without batch norms."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from quant.arith import quantize_pixels
from quant.params import choose_weight_shift, quantize_bias

Array = np.ndarray
NO_BATCH_NORM = "(?!)"


class ModelBuilder:
    """Grows a graph; every method appends nodes and returns the name of the tensor that they make.

    `quantized`: with Q/DQ pairs on weights and activations, biases on the accumulator's grid. `batch_norms`: regular
    expression on the names of convolutions that have one behind them. Weights are random, of a size that keeps
    activations near 1. Setting `copy` lets the same names be built again on the same parameters, as for another task
    that computes the shared part, too.
    """

    def __init__(
        self, hw: tuple[int, int], *, seed: int = 0, quantized: bool = True, batch_norms: str = NO_BATCH_NORM
    ) -> None:
        self.hw = hw
        self.seed = seed
        self.quantized = quantized
        self.batch_norms = re.compile(batch_norms)
        self.nodes: list[onnx.NodeProto] = []
        self.parameters: dict[str, Array] = {}
        self.copy = ""
        self.shift: dict[str, int] = {}
        self.channels = {"image": 3}

    def node(self, kind: str, inputs: Sequence[str], path: str, **attributes: Any) -> str:
        """Any node at all. `path` names its place, dotted: `neck.sum` gives `/neck/sum/Add_output_0`."""
        output = f"{self.copy}/{path.replace('.', '/')}/{kind}_output_0"
        assert all(output not in node.output for node in self.nodes), f"{output} is made twice"
        self.nodes.append(helper.make_node(kind, inputs, [output], output.removesuffix("_output_0"), **attributes))
        self.channels[output] = self.channels.get(inputs[0], 0)
        return output

    def rng(self, name: str) -> np.random.Generator:
        """Randomness of a unit: it depends on the unit's name only, not on what was built before."""
        return np.random.default_rng([self.seed, *name.encode()])

    def literal(self, path: str, value: Array) -> str:
        """A Constant node: scales and the like, of which the export makes no parameters."""
        output = f"{self.copy}/{path.replace('.', '/')}/Constant_output_0"
        self.nodes.append(helper.make_node("Constant", [], [output], output, value=numpy_helper.from_array(value)))
        return output

    def parameter(self, name: str, value: Array) -> Array:
        """Stores a parameter; returns the one stored before where there is one."""
        return self.parameters.setdefault(name, np.asarray(value, np.float32))

    def pair(
        self, path: str, x: str, shift: Any, *, axis: int | None = None, scale: Any = None, zero_point: int = 0
    ) -> str:
        """Quantize and dequantize. `scale` in place of 2^-shift makes models that must be refused."""
        real = np.ldexp(1.0, -np.asarray(shift)) if scale is None else np.asarray(scale)
        inputs = [
            self.literal(f"{path}.scale", real.astype(np.float32)),
            self.literal(f"{path}.zero_point", np.full(real.shape, zero_point, np.int8)),
        ]
        attributes = {} if axis is None else {"axis": axis}
        integer = self.node("QuantizeLinear", [x, *inputs], path, **attributes)
        return self.node("DequantizeLinear", [integer, *inputs], path, **attributes)

    def quantize(self, path: str, x: str, shift: int) -> str:
        """A quantizer of an activation; nothing in a float model."""
        if not self.quantized:
            return x
        output = self.pair(f"{path}.quantizer", x, shift)
        self.shift[output] = shift
        return output

    def image(self) -> str:
        return self.quantize("image", "image", 7)

    def conv(
        self,
        name: str,
        x: str,
        channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = True,
        values: tuple[Array, Array] | None = None,
        weight_shift: Any = None,
    ) -> str:
        """A convolution and, if its name asks for one, a batch norm.

        `values`: weight (O, I / groups, k, k) and bias (O,), in place of random ones.
        """
        in_channels, rng = self.channels[x] // groups, self.rng(name)
        weight, bias_value = values or (
            rng.standard_normal((channels, in_channels, kernel, kernel)) * (2 / (in_channels * kernel**2)) ** 0.5,
            rng.standard_normal(channels) * 0.3,
        )
        weight_name, bias_name = f"{name}.conv.weight", f"{name}.conv.bias"
        weight = self.parameter(weight_name, weight)
        inputs = [x, weight_name]
        if self.quantized:
            if weight_shift is None:
                weight_shift = choose_weight_shift(weight, bias_value, input_shift=self.shift[x], input_max=128)
            shifts = np.broadcast_to(weight_shift, channels)
            grid = shifts + self.shift[x]
            bias_value = np.ldexp(quantize_bias(bias_value, grid).astype(np.float64), -grid)
            inputs[1] = self.pair(name, weight_name, shifts, axis=0)
        if bias:
            self.parameter(bias_name, bias_value)
            inputs.append(bias_name)
        attributes = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [kernel // 2 * dilation] * 4,
            "dilations": [dilation, dilation],
            "group": groups,
        }
        output = self.node("Conv", inputs, name, **attributes)
        self.channels[output] = channels
        return self.batch_norm(name, output) if self.batch_norms.match(name) else output

    def batch_norm(self, name: str, x: str) -> str:
        channels, rng = self.channels[x], self.rng(f"{name}.bn")
        statistics = {
            "weight": rng.uniform(0.5, 1.5, channels) * rng.choice([-1, 1], channels),
            "bias": rng.standard_normal(channels) * 0.2,
            "running_mean": rng.standard_normal(channels) * 0.1,
            "running_var": rng.uniform(0.3, 2.0, channels),
        }
        for part, value in statistics.items():
            self.parameter(f"{name}.bn.{part}", value)
        inputs = [x, *(f"{name}.bn.{part}" for part in statistics)]
        return self.node("BatchNormalization", inputs, f"{name}.bn", epsilon=1e-3)

    def unit(self, name: str, x: str, channels: int, *, shift: int, relu: bool = False, **conv: Any) -> str:
        """Convolution [batch norm] [ReLU] quantizer."""
        result = self.conv(name, x, channels, **conv)
        return self.quantize(name, self.node("Relu", [result], name) if relu else result, shift)

    def sum(self, name: str, a: str, b: str, *, shift: int, relu: bool = True) -> str:
        """Add [ReLU] quantizer."""
        total = self.node("Add", [a, b], name)
        return self.quantize(name, self.node("Relu", [total], name) if relu else total, shift)

    def upsample(self, name: str, x: str, hw: tuple[int, int] | None = None, **rule: str) -> str:
        """Nearest x2 and, with `hw`, the crop to it."""
        scales = self.literal(f"{name}.scales", np.array([1, 1, 2, 2], np.float32))
        asymmetric = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        output = self.node("Resize", [x, "", scales], name, **(asymmetric | rule))
        if hw is not None:
            parts = {"starts": [0, 0], "ends": hw, "axes": [2, 3]}
            inputs = [self.literal(f"{name}.{part}", np.array(value, np.int64)) for part, value in parts.items()]
            output = self.node("Slice", [output, *inputs], name)
        if x in self.shift:
            self.shift[output] = self.shift[x]
        return output

    def concat(self, name: str, inputs: Sequence[str], *, shift: int, axis: int = 1) -> str:
        output = self.node("Concat", inputs, name, axis=axis)
        self.channels[output] = sum(self.channels[x] for x in inputs)
        return self.quantize_same_channels(name, output, shift)

    def quantize_same_channels(self, name: str, x: str, shift: int) -> str:
        output = self.quantize(name, x, shift)
        self.channels[output] = self.channels[x]
        return output

    def pool(self, name: str, x: str, *, shift: int, kernel: int = 2, stride: int = 2) -> str:
        output = self.node("AveragePool", [x], name, kernel_shape=[kernel, kernel], strides=[stride, stride])
        return self.quantize(name, output, shift)

    def finish(self, outputs: Mapping[str, str]) -> onnx.ModelProto:
        """The model, checked; `outputs` maps the outputs' names to the tensors that get them."""
        new_name = {tensor: name for name, tensor in outputs.items()}
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new_name.get(name, name) for name in names]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *self.hw))
        heads = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        parameters = [numpy_helper.from_array(value, name) for name, value in self.parameters.items()]
        graph = helper.make_graph(self.nodes, "tiny", [image], heads, parameters)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model, full_check=True)
        return model


def float_image(picture: Array) -> Array:
    """Network input uint8 (1, H, W, 3) -> the ONNX's `image`, float32 (1, 3, H, W)."""
    image = quantize_pixels(picture).astype(np.float32) / 128
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def run_onnx(model: onnx.ModelProto, picture: Array) -> dict[str, Array]:
    """The outputs by name, as ONNX Runtime has them: float32 NCHW."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # fused int8 kernels may saturate without VNNI
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": float_image(picture)}), strict=True))


def random_picture(hw: tuple[int, int], seed: int) -> Array:
    """A network input: noise over blocks of several sizes, so that some activations are large and many are not."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (1, *hw, 3))
    for block in (4, 16):
        coarse = rng.integers(0, 256, (1, -(-hw[0] // block), -(-hw[1] // block), 3))
        picture = picture + coarse.repeat(block, 1).repeat(block, 2)[:, : hw[0], : hw[1]]
    return np.clip((picture - 384) * 0.7 + 128, 0, 255).astype(np.uint8)
