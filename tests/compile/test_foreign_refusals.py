"""What is no such model is refused by the node's name and the reason, before anything is built."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compile.build import main
from tests.compile.foreign_graphs import Graph
from tests.compile.test_foreign_ops import conv

Make = Callable[[Graph], str]
S = 1 / 32


def asymmetric(g: Graph) -> str:
    return g.pair(conv(g, g.pair("x", S, zero=3), S), S)


def unsigned_picture(g: Graph) -> str:
    return g.pair(conv(g, g.pair("x", S, dtype=np.uint8), S), S)


def unsigned_weights(g: Graph) -> str:
    weight = g.weights((4, 6, 3, 3), np.full(4, S, np.float32), dtype=np.uint8)
    return g.pair(g.node("Conv", [g.pair("x", S), weight]), S)


def float_weights(g: Graph) -> str:
    return g.pair(g.node("Conv", [g.pair("x", S), g.constant(np.zeros((4, 6, 1, 1), np.float32))]), S)


def unknown(g: Graph) -> str:
    return g.pair(g.node("Softmax", [g.pair("x", S)]), S)


def open_input(g: Graph) -> str:
    return g.pair(g.node("MaxPool", [conv(g, g.pair("x", S), S)], kernel_shape=[2, 2]), S)


def open_output(g: Graph) -> str:
    return conv(g, g.pair("x", S), S)


def two_scales(g: Graph) -> str:
    scales = [g.constant(np.float32(value)) for value in (S, 2 * S)]
    zero = g.constant(np.int8(0))
    x = g.node("DequantizeLinear", [g.node("QuantizeLinear", ["x", scales[0], zero]), scales[1], zero])
    return g.pair(conv(g, x, S), S)


def many_scales(g: Graph) -> str:
    return g.pair(conv(g, g.pair("x", np.full(6, S), axis=1), S), S)


def tripled(g: Graph) -> str:
    scales = g.constant(np.float32([1, 1, 3, 3]))
    return g.pair(g.node("Resize", [g.pair("x", S), "", scales], mode="nearest"), S)


def wide_sums(g: Graph) -> str:
    g.shape = (1, 6, 2, 2)
    weight = g.weights((2, 6, 1, 1), 1.0)
    bias = g.constant(np.float32([67108860, 0]))
    return g.pair(g.node("Conv", [g.pair("x", S), weight, bias]), S)


def product_of_tensors(g: Graph) -> str:
    x = g.pair("x", S)
    return g.pair(g.node("Mul", [x, x]), S)


def mean_of_fewer(g: Graph) -> str:
    return g.pair(g.node("AveragePool", [g.pair("x", S)], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), S)


def integer_output(g: Graph) -> str:
    scale, zero = g.constant(np.float32(S)), g.constant(np.int8(0))
    return g.node("QuantizeLinear", [conv(g, g.pair("x", S), S), scale, zero])


def wide_constant(g: Graph) -> str:
    return g.pair(g.node("Mul", [g.pair("x", S), g.weights((1, 6, 1, 1), S, dtype=np.int32)]), S)


def endless_bias(g: Graph) -> str:
    weight = g.weights((2, 6, 1, 1), 1e-20)
    return g.pair(g.node("Conv", [g.pair("x", S), weight, g.constant(np.float32([0.5, 0]))]), S)


def dilated_pool(g: Graph) -> str:
    pool = g.node("MaxPool", [g.pair("x", S)], kernel_shape=[2, 2], strides=[4, 4], dilations=[2, 2])
    return g.pair(pool, S)


def flat_concat(g: Graph) -> str:
    x = g.pair("x", S)
    pooled = g.node("MaxPool", [x], kernel_shape=[2, 2])
    return g.pair(g.node("Concat", [g.node("Flatten", [entry]) for entry in (x, pooled)], axis=1), S)


def sum_of_maps_of_other_sizes(g: Graph) -> str:
    """As vectors they have as many values, 6 · 9 · 7 and 18 · 7 · 3."""
    x = g.pair("x", S)
    other = g.pair(conv(g, x, S, out=18, strides=[1, 2]), S)
    return g.pair(g.node("Add", [g.node("Flatten", [entry]) for entry in (x, other)]), S)


def relu_of_a_flattened_map(g: Graph) -> str:
    return g.pair(g.node("Relu", [g.node("Flatten", [g.pair("x", S)])]), S)


def open_pad(g: Graph) -> str:
    pads = g.constant(np.int64([0, 0, 1, 1, 0, 0, 1, 1]))
    padded = g.node("Pad", [g.pair("x", S), pads, g.constant(np.float32(0.5))])
    return g.pair(g.node("MaxPool", [padded], kernel_shape=[2, 2]), S)


def reflected(g: Graph) -> str:
    return g.pair(g.node("Pad", [g.pair("x", S), g.constant(np.int64([0, 0, 1, 1, 0, 0, 1, 1]))], mode="reflect"), S)


def resize_of_one_axis(g: Graph) -> str:
    return g.pair(g.node("Resize", [g.pair("x", S), "", g.constant(np.float32([2]))], axes=[3], mode="linear"), S)


def nearest_by_floor(g: Graph) -> str:
    """From half-pixel centres, the floor is no plain copying."""
    scales = g.constant(np.float32([1, 1, 2, 2]))
    return g.pair(g.node("Resize", [g.pair("x", S), "", scales], mode="nearest", nearest_mode="floor"), S)


def quantized_to_int32(g: Graph) -> str:
    return g.pair(g.node("Relu", [g.pair("x", S, dtype=np.int32)]), S)


def pads_of_a_whole_window(g: Graph) -> str:
    """ONNX Runtime itself refuses it."""
    return g.pair(g.node("MaxPool", [g.pair("x", S)], kernel_shape=[2, 2], pads=[2, 0, 0, 0]), S)


def slice_of_a_vector(g: Graph) -> str:
    parts = [g.constant(np.int64([value])) for value in (1, 9, -1)]
    return g.pair(g.node("Slice", [g.node("Flatten", [g.pair("x", S)]), *parts]), S)


def blocks(g: Graph) -> str:
    return g.pair(conv(g, g.pair("x", np.full((6, 1), S)), S), S)


def kernel_of_another_size(g: Graph) -> str:
    """Shape inference believes the attribute."""
    return g.pair(conv(g, g.pair("x", S), S, kernel_shape=[1, 1]), S)


def transposed(g: Graph) -> str:
    return g.pair(g.node("Transpose", [g.pair("x", S)], perm=[0, 1, 3, 2]), S)


def huge_ratio(g: Graph) -> str:
    return g.pair(conv(g, g.pair("x", 2.0**20), 2.0**20), 2.0**-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (asymmetric, r"node QuantizeLinear0 \(QuantizeLinear\): its zero point is 3; quantize symmetrically"),
        (unsigned_picture, r"node QuantizeLinear0 \(QuantizeLinear\): its type is uint8; quantize to int8"),
        (unsigned_weights, r"node DequantizeLinear\d+ \(DequantizeLinear\): its type is uint8"),
        (float_weights, r"node Conv\d+ \(Conv\): its weight constant\d+ is not quantized to int8"),
        (unknown, r"node Softmax2 is a Softmax, which has no integer form here"),
        (open_input, r"node MaxPool\d+ \(MaxPool\): its input Conv\d+\.out is not quantized"),
        (open_output, r"output Conv\d+\.out is not quantized; end it with a QuantizeLinear"),
        (two_scales, r"node DequantizeLinear1 \(DequantizeLinear\): it has another scale than the QuantizeLinear"),
        (many_scales, r"node QuantizeLinear0 \(QuantizeLinear\): an activation has one scale"),
        (
            tripled,
            r"node Resize2 \(Resize\): only upsampling by 2.* not mode nearest, coordinates half_pixel, "
            r"nearest_mode round_prefer_floor, from \(9, 7\) to \(27, 21\)",
        ),
        (
            nearest_by_floor,
            r"node Resize2 \(Resize\): .* not mode nearest, coordinates half_pixel, nearest_mode floor, from",
        ),
        (resize_of_one_axis, r"node Resize2 \(Resize\): .* not mode linear, coordinates half_pixel, .* to \(9, 14\)"),
        (wide_sums, r"node Conv3 \(Conv\): sums of channel 0 reach \d+, over int32"),
        (product_of_tensors, r"node Mul2 \(Mul\): only a tensor times a constant has an integer form"),
        (mean_of_fewer, r"node AveragePool2 \(AveragePool\): at the edges its mean is over fewer values"),
        (integer_output, r"output QuantizeLinear\d+\.out holds integers; end it with a DequantizeLinear"),
        (wide_constant, r"node Mul\d+ \(Mul\): its constant is not quantized to int8"),
        (endless_bias, r"node Conv\d+ \(Conv\): its bias 0\.5 is over int32 on the accumulator's grid"),
        (dilated_pool, r"node MaxPool\d+ \(MaxPool\): a dilated pooling has no form here"),
        (flat_concat, r"node Concat\d+ \(Concat\): flattened maps of \(8, 6\) and \(9, 7\) cannot be joined"),
        (
            relu_of_a_flattened_map,
            r"node Relu\d+ \(Relu\): the values of a flattened map lie in another order here; flatten after it",
        ),
        (
            sum_of_maps_of_other_sizes,
            r"node Add\d+ \(Add\): only tensors of one shape can be added, Flatten\d+\.out has another",
        ),
        (open_pad, r"node MaxPool\d+ \(MaxPool\): its input Pad\d+\.out is not quantized"),
        (reflected, r"node Pad\d+ \(Pad\): only padding with one number has a form here, not reflect by"),
        (slice_of_a_vector, r"node Slice\d+ \(Slice\): only a map \(1, C, H, W\) has a form here"),
        (
            blocks,
            r"(node QuantizeLinear0 \(QuantizeLinear\): scales of blocks|not a valid ONNX|its sizes do not)",
        ),
        (quantized_to_int32, r"node QuantizeLinear0 \(QuantizeLinear\): its type is int32; quantize to int8"),
        (pads_of_a_whole_window, r"ONNX Runtime refuses the model \(.*Pad should be smaller than kernel"),
        (
            kernel_of_another_size,
            r"node Conv\d+ \(Conv\): it makes \(1, 7, 5, 8\) \(NHWC\), the model says \(1, 9, 7, 8\); export it again",
        ),
        (transposed, r"node Transpose2 \(Transpose\): only weights can be transposed, not what is computed"),
        (huge_ratio, r"node QuantizeLinear\d+ \(QuantizeLinear\): a ratio of scales is .*: every value but 0 would"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_by_name(make: Make, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    g = Graph()
    path = g.finish(tmp_path / "model.onnx", make(g), opset=18)  # the first with axes of a Resize
    refused(path, message, capsys)


def refused(path: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = path.parent / "out"
    assert main(["--onnx", str(path), "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert re.match(rf"error: {re.escape(str(path))}: {message}", error), error
    assert "Traceback" not in error
    assert not folder.exists()


def good(path: Path, *, dynamic: bool = False) -> Path:
    g = Graph()
    return g.finish(path, g.pair(conv(g, g.pair("x", S), S), S), dynamic=dynamic)


def test_dynamic_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = good(tmp_path / "model.onnx", dynamic=True)
    refused(path, r"input x has dynamic sizes \(batch\); export it with a fixed shape", capsys)


def test_sizes_below_zero_are_dynamic_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So some exporters write them."""
    model = onnx.load(good(tmp_path / "model.onnx"))
    for size in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        size.dim_value = -1
    onnx.save(model, str(tmp_path / "model.onnx"))
    refused(tmp_path / "model.onnx", r"input x has dynamic sizes \(\?, \?\); export it with a fixed shape", capsys)


def test_a_tensor_of_other_bytes_than_its_shape_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(good(tmp_path / "model.onnx"))
    weight = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
    weight.raw_data += b"\0"
    onnx.save(model, str(tmp_path / "model.onnx"))
    refused(tmp_path / "model.onnx", rf"tensor {weight.name} cannot be read \(.+\); export it again", capsys)


def test_a_file_that_is_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = good(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "not a valid ONNX model", capsys)


def test_an_old_opset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One scale to a tensor: opset 10 has no other."""
    g = Graph()
    convolved = g.node("Conv", [g.pair("x", S), g.weights((4, 6, 1, 1), S)])
    path = g.finish(tmp_path / "model.onnx", g.pair(convolved, S), opset=10)
    refused(path, r"opset 10 is too old; export it with 11 or a later one", capsys)


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path / "nowhere.onnx", "no such file", capsys)


def test_sizes_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    g = Graph((1, 5, 8, 8))  # the weights read 6 channels
    path = g.finish(tmp_path / "model.onnx", g.pair(conv(g, g.pair("x", S), S), S))
    refused(path, r"node Conv\d+ \(Conv\): weights of 8 channels over 6 in 1 groups do not fit an input of 5", capsys)
