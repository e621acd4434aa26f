"""What has no integer form is refused by the name of the tensor or weight, with the cure."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compile.errors import CompileError
from tests.compile.engines import integer_module
from tests.compile.models import ModelBuilder

Make = Callable[[ModelBuilder, str], str]


def odd_scale(b: ModelBuilder, x: str) -> str:
    return b.pair("head.quantizer", b.conv("head", x, 4), 0, scale=0.3)


def zero_point(b: ModelBuilder, x: str) -> str:
    return b.pair("head.quantizer", b.conv("head", x, 4), 4, zero_point=1)


def replace_literal(b: ModelBuilder, name: str, value: np.ndarray) -> None:
    (node,) = (node for node in b.nodes if node.output[0] == name)
    node.attribute[0].t.CopyFrom(numpy_helper.from_array(value))


def unsigned(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    replace_literal(b, "/head/quantizer/zero_point/Constant_output_0", np.array(0, np.uint8))
    return output


def no_zero_point(b: ModelBuilder, x: str) -> str:
    """Without it ONNX quantizes to uint8."""
    output = b.unit("head", x, 4, shift=4)
    for node in b.nodes[-2:]:
        del node.input[2]
    return output


def unequal_scales(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    dequantize = b.nodes.pop()
    dequantize.input[1] = b.literal("other", np.float32(0.25))
    b.nodes.append(dequantize)
    return output


def scale_per_channel(b: ModelBuilder, x: str) -> str:
    return b.pair("head.quantizer", b.conv("head", x, 4), [4, 4, 5, 4], axis=1)


def weight_scale_along_inputs(b: ModelBuilder, x: str) -> str:
    stem = b.unit("stem", x, 4, shift=4)
    output = b.unit("head", stem, 4, weight_shift=[5, 6, 7, 6], shift=4)
    for node in b.nodes:
        if "/head/QuantizeLinear" in node.output[0] or "/head/DequantizeLinear" in node.output[0]:
            node.attribute[0].i = 1
    return output


def picture_scale(b: ModelBuilder, x: str) -> str:
    b.shift["image"] = 6
    return b.unit("head", b.quantize("coarse", "image", 6), 4, shift=4)


def bias_off_the_grid(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    b.parameters["head.conv.bias"][2] += 2.0**-20
    return output


def huge_bias(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    b.parameters["head.conv.bias"][2] = 2.0**40
    return output


def least_weight(b: ModelBuilder, x: str) -> str:
    weight = np.full((4, 3, 3, 3), 0.25)
    weight[1, 2, 0, 1] = -1
    return b.unit("head", x, 4, values=(weight, np.zeros(4)), weight_shift=7, shift=4)


def damaged_weight(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    b.parameters["head.conv.weight"][0, 1, 2, 0] = np.nan
    return output


def float_input(b: ModelBuilder, x: str) -> str:
    stem = b.conv("stem", x, 4)
    b.shift[stem] = 4
    return b.unit("head", stem, 4, shift=4)


def float_picture(b: ModelBuilder, x: str) -> str:
    b.shift["image"] = 7
    return b.unit("head", "image", 4, shift=4)


def float_output(b: ModelBuilder, x: str) -> str:
    return b.conv("head", x, 4, bias=False)


def float_weight(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    (node,) = (node for node in b.nodes if node.op_type == "Conv")
    node.input[1] = "head.conv.weight"
    return output


def two_open_convolutions(b: ModelBuilder, x: str) -> str:
    return b.sum("merge", b.conv("left", x, 4, bias=False), b.conv("right", x, 4, bias=False), shift=4)


def added_behind_relu(b: ModelBuilder, x: str) -> str:
    shortcut = b.unit("shortcut", x, 4, shift=4)
    return b.sum("merge", b.node("Relu", [b.conv("main", x, 4)], "main"), shortcut, shift=4)


def broadcast_sum(b: ModelBuilder, x: str) -> str:
    return b.sum("merge", b.unit("left", x, 4, shift=4), b.unit("right", x, 1, shift=4), shift=4)


def broadcast_residual(b: ModelBuilder, x: str) -> str:
    return b.sum("merge", b.conv("left", x, 4), b.unit("right", x, 1, shift=4), shift=4)


def late_relu(b: ModelBuilder, x: str) -> str:
    return b.quantize("out", b.node("Relu", [b.unit("head", x, 4, shift=4)], "late"), 4)


def dilation(b: ModelBuilder, x: str) -> str:
    return b.unit("head", x, 4, dilation=2, shift=4)


def attribute_of_conv(b: ModelBuilder, name: str, values: list[int]) -> None:
    (node,) = (node for node in b.nodes if node.op_type == "Conv")
    (entry,) = (entry for entry in node.attribute if entry.name == name)
    entry.ints[:] = values


def two_strides(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    attribute_of_conv(b, "strides", [1, 2])
    return output


def uneven_padding(b: ModelBuilder, x: str) -> str:
    output = b.unit("head", x, 4, shift=4)
    attribute_of_conv(b, "pads", [0, 0, 1, 1])
    return output


def flat_kernel(b: ModelBuilder, x: str) -> str:
    values = np.full((4, 3, 1, 3), 0.25), np.zeros(4)
    output = b.unit("head", x, 4, kernel=1, values=values, shift=4)
    attribute_of_conv(b, "kernel_shape", [1, 3])
    return output


def upsampled(b: ModelBuilder, x: str, hw: tuple[int, int] | None = None, **rule: str) -> str:
    return b.quantize("out", b.upsample("up", b.unit("stem", x, 4, shift=4), hw, **rule), 4)


def linear_resize(b: ModelBuilder, x: str) -> str:
    return upsampled(b, x, mode="linear")


def centred_resize(b: ModelBuilder, x: str) -> str:
    return upsampled(b, x, coordinate_transformation_mode="half_pixel")


def ceiling_resize(b: ModelBuilder, x: str) -> str:
    return upsampled(b, x, nearest_mode="ceil")


def tripled(b: ModelBuilder, x: str) -> str:
    output = upsampled(b, x)
    replace_literal(b, "/up/scales/Constant_output_0", np.array([1, 1, 3, 3], np.float32))
    return output


def cropped_at_the_top(b: ModelBuilder, x: str) -> str:
    output = upsampled(b, x, (16, 20))
    replace_literal(b, "/up/starts/Constant_output_0", np.array([1, 0]))
    return output


def every_second_pixel(b: ModelBuilder, x: str) -> str:
    output = upsampled(b, x, (16, 20))
    (node,) = (node for node in b.nodes if node.op_type == "Slice")
    node.input.append(b.literal("steps", np.array([2, 2])))
    b.nodes.insert(0, b.nodes.pop())
    return output


def crop_of_a_map(b: ModelBuilder, x: str) -> str:
    sizes = [b.literal(name, np.array(value)) for name, value in (("a", [0, 0]), ("b", [4, 4]), ("c", [2, 3]))]
    return b.quantize("out", b.node("Slice", [b.unit("stem", x, 4, shift=4), *sizes], "crop"), 4)


def concat_of_rows(b: ModelBuilder, x: str) -> str:
    return b.concat("out", [b.unit(side, x, 4, shift=4) for side in ("a", "b")], shift=4, axis=2)


def pool_of_three(b: ModelBuilder, x: str) -> str:
    return b.pool("pool", b.unit("stem", x, 4, shift=4), kernel=3, stride=1, shift=4)


def padded_pool(b: ModelBuilder, x: str) -> str:
    output = b.pool("pool", b.unit("stem", x, 4, shift=4), shift=4)
    (node,) = (node for node in b.nodes if node.op_type == "AveragePool")
    node.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    return output


def batch_norm(b: ModelBuilder, x: str) -> str:
    return b.quantize("out", b.batch_norm("head", b.conv("head", x, 4)), 4)


REFUSALS: list[tuple[Make, str]] = [
    (odd_scale, r"/head/quantizer/QuantizeLinear_output_0: scale 0\.3\d* is no power of two"),
    (zero_point, r"/head/quantizer/QuantizeLinear_output_0: .*zero point 0; export symmetric int8"),
    (unsigned, r"/head/quantizer/QuantizeLinear_output_0: .*export symmetric int8"),
    (no_zero_point, r"/head/quantizer/QuantizeLinear_output_0: .*export symmetric int8"),
    (unequal_scales, r"out: another scale than in its quantize"),
    (scale_per_channel, r"/head/quantizer/QuantizeLinear_output_0: .* one scale per tensor, here are 4"),
    (weight_scale_along_inputs, r"/head/QuantizeLinear_output_0: scales of head\.conv\.weight along axis 1"),
    (picture_scale, r"/coarse/quantizer/QuantizeLinear_output_0: the picture's shift is 6, it must be 7"),
    (bias_off_the_grid, r"head\.conv\.bias: a bias off the accumulator's grid"),
    (huge_bias, r"head\.conv\.bias: bias 1\.09951e\+12 does not fit int32"),
    (least_weight, r"head\.conv\.weight: a weight of -128 .*clamp to ±127"),
    (damaged_weight, r"head\.conv\.weight: a weight of -128 \(or no number\)"),
    (float_input, r"/stem/Conv_output_0: a float tensor where an int8 one is needed; quantize it"),
    (float_picture, r"image: a float tensor where an int8 one is needed"),
    (float_output, r"out: a float tensor where an int8 one is needed; .*every output"),
    (float_weight, r"head\.conv\.weight: a float weight of a convolution"),
    (
        two_open_convolutions,
        r"/right/Conv_output_0: a float tensor where an int8 one is needed; .*one operand of an add",
    ),
    (added_behind_relu, r"/merge/Add_output_0: only the bare result of a convolution may be added"),
    (broadcast_sum, r"/merge/Add_output_0: only tensors of one shape can be added, not \(1, 4, 8, 10\) and \(1, 1, "),
    (broadcast_residual, r"/merge/Add_output_0: only tensors of one shape can be added"),
    (late_relu, r"/late/Relu_output_0: a ReLU must stand before its layer's quantize"),
    (dilation, r"head\.conv\.weight: dilated convolutions have no integer form"),
    (two_strides, r"head\.conv\.weight: \[1, 2\] differ between the axes"),
    (uneven_padding, r"head\.conv\.weight: \[0, 1\] differ between the axes"),
    (flat_kernel, r"head\.conv\.weight: \[1, 3\] differ between the axes"),
    (linear_resize, r"/up/Resize_output_0: only nearest upsampling by 2 .*linear"),
    (centred_resize, r"/up/Resize_output_0: only nearest upsampling by 2 .*half_pixel"),
    (ceiling_resize, r"/up/Resize_output_0: only nearest upsampling by 2 .*ceil"),
    (tripled, r"/up/Resize_output_0: only nearest upsampling by 2"),
    (cropped_at_the_top, r"/up/Slice_output_0: only the crop .*bottom and right"),
    (every_second_pixel, r"/up/Slice_output_0: only the crop .*bottom and right"),
    (crop_of_a_map, r"/crop/Slice_output_0: only the crop of an upsampled map"),
    (concat_of_rows, r"/out/Concat_output_0: only a concat over channels"),
    (pool_of_three, r"/pool/AveragePool_output_0: average pooling needs a power of two"),
    (padded_pool, r"/pool/AveragePool_output_0: average pooling needs .*no padding"),
    (batch_norm, r"head\.bn\.weight: relax\.nn\.batch_norm has no integer form"),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS, ids=[make.__name__ for make, _ in REFUSALS])
def test_refused(make: Make, message: str) -> None:
    b = ModelBuilder((8, 10))
    model = b.finish({"out": make(b, b.image())})
    onnx.checker.check_model(model, full_check=True)
    with pytest.raises(CompileError, match=rf"^{message}"):
        integer_module(model)
