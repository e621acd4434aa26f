"""Three small networks of others, as ONNX Runtime's own quantizer leaves them: symmetric int8, Q/DQ nodes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

HW = (32, 40)
CLASSES = 10
CALIBRATION = 8  # pictures


def unit(channels_in: int, channels: int, kernel: int = 3, *, relu: nn.Module | None = None, **more: int) -> nn.Module:
    """Convolution, batch norm with statistics of its own, activation."""
    conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2 * more.get("dilation", 1), bias=False, **more)
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.7, 1.4)
    nn.init.normal_(norm.bias, std=0.2)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return nn.Sequential(conv, norm, *([relu] if relu is not None else []))


class InvertedResidual(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = 4 * channels_in
        self.skip = stride == 1 and channels_in == channels
        self.body = nn.Sequential(
            unit(channels_in, inner, 1, relu=nn.ReLU6()),
            unit(inner, inner, 3, relu=nn.ReLU6(), stride=stride, groups=inner),
            unit(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.skip else self.body(x)


class MobileNet(nn.Module):
    """Inverted residuals with ReLU6, depthwise convolutions, a global mean, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            unit(3, 8, relu=nn.ReLU6(), stride=2),
            InvertedResidual(8, 8, 1),
            InvertedResidual(8, 16, 2),
            InvertedResidual(16, 16, 1),
            unit(16, 48, 1, relu=nn.ReLU6()),
        )
        self.classifier = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3), keepdim=True).flatten(1))


class Basic(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(channels_in, channels, relu=nn.ReLU(), stride=stride), unit(channels, channels))
        self.shortcut = unit(channels_in, channels, 1, stride=stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Residual blocks behind a max pooling, leaky ReLU and a dilated convolution at the end, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(unit(3, 16, relu=nn.ReLU(), stride=2), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(Basic(16, 16, 1), Basic(16, 32, 2), Basic(32, 32, 1))
        self.last = unit(32, 32, dilation=2, relu=nn.LeakyReLU(0.1))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.last(self.blocks(self.stem(x)))), 1))


class UNet(nn.Module):
    """Two levels: bilinear and nearest upsampling, concats, a sigmoid gate of constants, class scores per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.middle = unit(3, 8, relu=nn.ReLU()), unit(8, 16, relu=nn.ReLU())
        self.bottom = unit(16, 16, relu=nn.Sigmoid())
        self.up = unit(32, 16, relu=nn.ReLU())
        self.last = unit(24, 8, relu=nn.ReLU())
        self.scores = nn.Conv2d(8, 5, 1)
        self.register_buffer("gain", torch.linspace(0.5, 1.5, 16).reshape(1, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        top = self.top(x)
        middle = self.middle(nn.functional.max_pool2d(top, 2))
        bottom = self.bottom(nn.functional.max_pool2d(middle, 2)) * self.gain
        doubled = nn.functional.interpolate(bottom, scale_factor=2, mode="bilinear", align_corners=False)
        middle = self.up(torch.cat([doubled, middle], 1))
        doubled = nn.functional.interpolate(middle, scale_factor=2, mode="nearest")
        return self.scores(self.last(torch.cat([doubled, top], 1)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"mobilenet": MobileNet, "resnet": ResNet, "unet": UNet}


def pictures(count: int, seed: int) -> Iterator[np.ndarray]:
    """Inputs float32 (1, 3, H, W): smooth noise, at times flat."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coarse = rng.standard_normal((1, 3, HW[0] // 4, HW[1] // 4)).repeat(4, 2).repeat(4, 3)
        yield (coarse + 0.3 * rng.standard_normal((1, 3, *HW))).astype(np.float32)


class _Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self._pictures = pictures(CALIBRATION, seed=1)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"x": picture}


def quantized(name: str, folder: Path, *, per_channel: bool = True) -> Path:
    """The network of that name with random weights, quantized; the path of the ONNX."""
    torch.manual_seed(7)
    network = NETWORKS[name]().eval()
    exact = folder / f"{name}-float.onnx"
    example = torch.zeros(1, 3, *HW)
    torch.onnx.export(network, (example,), str(exact), input_names=["x"], output_names=["y"], dynamo=False)
    return _quantize(exact, folder / f"{name}.onnx", per_channel=per_channel)


def quantized_with_pad(value: float, folder: Path) -> Path:
    """Convolution, ReLU, a Pad that is told its value, convolution, quantized; the path of the ONNX."""
    rng = np.random.default_rng(7)
    constants = {
        "first": rng.normal(0, 0.2, (8, 3, 3, 3)),
        "second": rng.normal(0, 0.1, (4, 8, 3, 3)),
        "value": np.array(value),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Pad", ["b", "amounts", "value"], ["c"]),
        helper.make_node("Conv", ["c", "second"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(entry.astype(np.float32), name) for name, entry in constants.items()]
    initializers.append(numpy_helper.from_array(np.array([0, 0, 1, 2, 0, 0, 1, 0]), "amounts"))
    interface = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", (1, 3, *HW)), ("y", None))
    ]
    graph = helper.make_graph(nodes, "padded", *interface, initializers)
    exact = folder / f"pad-{value}-float.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), str(exact))
    return _quantize(exact, folder / f"pad-{value}.onnx", per_channel=True)


def _quantize(exact: Path, target: Path, *, per_channel: bool) -> Path:
    quantize_static(
        str(exact),
        str(target),
        _Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    return target


def to_powers_of_two(source: Path, target: Path) -> Path:
    """The same model with every scale the next power of two, weights and biases rounded to the new grids."""
    model = onnx.load(str(source))
    constants = {entry.name: entry for entry in model.graph.initializer}
    value = {name: numpy_helper.to_array(entry) for name, entry in constants.items()}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    weights = {node.input[0]: node for node in pairs if node.input[0] in value}
    scale_of = {node.input[1]: value[node.input[1]] for node in pairs}
    rounded = {name: np.exp2(np.ceil(np.log2(scale))).astype(np.float32) for name, scale in scale_of.items()}
    producer = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:  # a bias lies on the grid of its convolution's input and weight
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
            x, weight, bias = (producer[entry].input[1] for entry in node.input[:3])
            rounded[bias] = (rounded[x] * rounded[weight]).astype(np.float32)
    for name, node in weights.items():
        before, after = scale_of[node.input[1]], rounded[node.input[1]]
        shape = [-1 if axis == 0 and before.size > 1 else 1 for axis in range(value[name].ndim)]
        real = value[name].astype(np.float64) * before.reshape(shape)
        limit = 127 if value[name].dtype == np.int8 else 2**31 - 1
        integers = np.clip(np.rint(real / after.reshape(shape)), -limit, limit).astype(value[name].dtype)
        constants[name].CopyFrom(numpy_helper.from_array(integers, name))
    for name, scale in rounded.items():
        constants[name].CopyFrom(numpy_helper.from_array(scale.reshape(value[name].shape), name))
    onnx.save(model, str(target))
    return target
