"""The certificate of a module: every layer that sums, its bound what inputs reach, refusals by the layer's name."""

from collections.abc import Callable

import numpy as np
import pytest

from compile.certify import certify, layer_calls
from compile.files import Parameters
from compile.layers import AddLayer, AveragePool, ConcatLayer, ConvLayer
from quant import arith
from quant.arith import ACCUMULATOR_LIMIT
from quant.certificate import CertificateError, LayerBound
from tests.compile.engines import integer_module, run_integer
from tests.compile.models import ModelBuilder, random_picture, run_onnx
from tests.compile.toy import toy_network

Array = np.ndarray
HW = (4, 6)
KINDS = {ConvLayer: "conv", AddLayer: "add", ConcatLayer: "concat", AveragePool: "pool"}
Make = Callable[[ModelBuilder, str], str]


def certified(make: Make) -> dict[str, LayerBound]:
    b = ModelBuilder(HW)
    module, parameters, _ = integer_module(b.finish({"out": make(b, b.image())}))
    return {bound.name: bound for bound in certify(module, parameters)}


def test_every_layer_that_sums_is_listed() -> None:
    module, parameters, _ = integer_module(toy_network())
    bounds = certify(module, parameters)
    listed = [(bound.name, bound.kind) for bound in bounds]
    wanted = [(call.name, KINDS[type(call.layer)]) for call in layer_calls(module) if type(call.layer) in KINDS]
    assert listed == wanted
    assert {kind for _, kind in listed} == set(KINDS.values())
    assert all(0 < bound.float_bound < ACCUMULATOR_LIMIT for bound in bounds)


def extremes(behind_relu: bool) -> Array:
    return np.array([0, 127] if behind_relu else [-128, 127])


def largest_sum(weight: Array, bias: Array, behind_relu: bool) -> Array:
    """Per channel the largest magnitude of Σ|w·x| + |bias|, over inputs of extremes: each product is a partial sum."""
    products = np.abs(weight.astype(np.int64).reshape(len(weight), -1)[..., None] * extremes(behind_relu))
    return products.max(axis=2).sum(axis=1) + np.abs(bias.astype(np.int64))


@pytest.mark.parametrize("relu", [False, True])
def test_a_convolutions_bound_is_the_worst_of_its_inputs(relu: bool) -> None:
    """Behind a ReLU inputs end at 127; an upsampling in between changes nothing."""
    b = ModelBuilder(HW)
    first = b.unit("first", b.image(), 4, stride=2, relu=relu, shift=4)
    up = b.upsample("up", first)
    b.channels[up] = 4
    outputs = {"direct": b.unit("direct", first, 3, shift=4), "behind": b.unit("behind", up, 3, shift=4)}
    module, parameters, _ = integer_module(b.finish(outputs))
    bounds = {bound.name: bound for bound in certify(module, parameters)}
    for name in ("direct.conv", "behind.conv"):
        sums = largest_sum(parameters[f"{name}.weight"], parameters[f"{name}.bias"], relu)
        assert bounds[name].float_bound == sums.max()
        assert bounds[name].worst_channel == sums.argmax()


def test_a_residual_counts_on_the_common_grid() -> None:
    b = ModelBuilder(HW)
    x = b.image()
    shortcut = b.unit("shortcut", x, 4, shift=12)
    output = b.sum("block", b.conv("main", x, 4, weight_shift=3), shortcut, shift=3)
    module, parameters, _ = integer_module(b.finish({"out": output}))
    bound = next(bound for bound in certify(module, parameters) if bound.name == "main.conv")
    sums = largest_sum(parameters["main.conv.weight"], parameters["main.conv.bias"], behind_relu=False)
    # the accumulator's grid is 7 + 3, the residual's 12: the sum goes two bits to the left
    assert bound.float_bound == (4 * sums + 128).max()
    assert bound.aligned_bound == bound.float_bound + (1 << (12 - 3 - 1))


def test_bounds_of_adds_concats_and_pools_are_reached() -> None:
    def all_kinds(b: ModelBuilder, x: str) -> str:
        a, c = b.unit("a", x, 4, shift=4), b.unit("c", x, 4, relu=True, shift=6)
        joined = b.concat("joined", [b.sum("sum", a, c, shift=3), c], shift=2)
        return b.pool("pooled", joined, kernel=4, stride=1, shift=5)

    bounds = certified(all_kinds)
    a, c = np.int64(-128), np.int64(127)  # c is behind a ReLU
    assert bounds["sum"].float_bound == abs(arith.align(a, 4, 6)) + arith.align(c, 6, 6)
    assert bounds["joined"].float_bound == 127, "the sum and c are both behind a ReLU"
    assert bounds["joined"].aligned_bound == 127 + (1 << (6 - 2 - 1))
    assert bounds["pooled"].float_bound == 16 * 128
    # read as a mean the sum of 16 has four bits more: from 2 + 4 to 5
    assert bounds["pooled"].aligned_bound >= 16 * 128 + 1


def big_bias(b: ModelBuilder, x: str) -> str:
    values = np.full((3, 3, 1, 1), 0.25), np.array([0.0, 600.0, 0.0])
    return b.unit("head.predict", x, 3, kernel=1, values=values, weight_shift=8, shift=-4)


def many_weights(b: ModelBuilder, x: str) -> str:
    wide = b.unit("wide", x, 200, kernel=1, shift=4)
    values = np.full((2, 200, 3, 3), 127 / 128), np.zeros(2)
    return b.unit("head.predict", wide, 2, values=values, weight_shift=7, shift=-4)


def fine_residual(b: ModelBuilder, x: str) -> str:
    shortcut = b.unit("shortcut", x, 3, shift=-4)
    values = np.full((3, 3, 3, 3), 2.0**-9), np.zeros(3)
    return b.sum("head", b.conv("head.predict", x, 3, values=values, weight_shift=14), shortcut, shift=-4)


def far_to_the_right(b: ModelBuilder, x: str) -> str:
    """31 bits: 1 << 31 is no int32."""
    middle = b.unit("middle", x, 3, shift=12)
    values = np.full((3, 3, 1, 1), 2.0**-12), np.zeros(3)
    return b.unit("head.predict", middle, 3, kernel=1, values=values, weight_shift=14, shift=-5)


def far_to_the_left(b: ModelBuilder, x: str) -> str:
    """25 bits: -128 << 25 is no int32."""
    values = np.full((3, 3, 1, 1), 2.0**18), np.zeros(3)
    return b.unit("head.predict", x, 3, kernel=1, values=values, weight_shift=-18, shift=14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (big_bias, r"layer head\.predict\.conv \(conv\), channel 1: sums reach \d+, the limit is 2\^24"),
        (many_weights, r"layer head\.predict\.conv \(conv\), channel 0: sums reach \d+, the limit is 2\^24"),
        (fine_residual, r"layer head\.predict\.conv \(conv\), channel 0: sums reach \d+"),
        (far_to_the_right, r"layer head\.predict\.conv \(conv_layer\): requantizes by 31 to 31 bits"),
        (far_to_the_left, r"layer head\.predict\.conv \(conv_layer\): requantizes by -25 to -25 bits"),
    ],
)
def test_refused_by_the_layers_name(make: Make, message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        certified(make)


def test_the_last_legal_distances_pass_and_are_exact() -> None:
    """30 bits to the right, 24 to the left."""
    b = ModelBuilder(HW)
    x = b.image()
    values = np.full((3, 3, 1, 1), 2.0**-8), np.array([0.2, -0.2, 0.0])
    right = b.unit("right", b.unit("fine", x, 3, shift=12), 3, kernel=1, values=values, weight_shift=14, shift=-4)
    values = np.full((3, 3, 1, 1), 256.0), np.array([-4096.0, 4096.0, 0.0])
    left = b.unit("left", b.unit("coarse", x, 3, shift=-4), 3, kernel=1, values=values, weight_shift=-8, shift=12)
    model = b.finish({"right": right, "left": left})
    module, parameters, _ = integer_module(model)
    certify(module, parameters)
    picture = random_picture(HW, 1)
    expected = run_onnx(model, picture)
    for got, name, shift in zip(run_integer(module, parameters, picture), expected, (-4, 12), strict=True):
        assert np.array_equal(got, np.ldexp(expected[name].transpose(0, 2, 3, 1), shift))
    assert {-128, 127} <= set(got.ravel().tolist())


def test_changed_parameters_are_certified_too() -> None:
    """What is built from the pair alone is checked as it is there, shifts included."""
    module, parameters, _ = integer_module(toy_network())
    for name, value, message in [
        ("neck.reduction.conv.bias", 1 << 24, r"neck\.reduction\.conv .*2\^24"),
        ("neck.reduction.conv.weight_shift", 40, r"neck\.reduction\.conv .*requantizes by .* to 41 bits"),
        ("neck.reduction.conv.weight_shift", -40, r"neck\.reduction\.conv .*requantizes by -39"),
        ("backbone.block.second.conv.weight_shift", -60, r"backbone\.block\.second\.conv .*aligned by 59 bits"),
        ("backbone.block.second.conv.weight_shift", 60, r"backbone\.block\.second\.conv .*aligned by 61 bits"),
    ]:
        changed: Parameters = parameters | {name: parameters[name].copy()}
        changed[name][2] = value
        with pytest.raises(CertificateError, match=message):
            certify(module, changed)


def nearly_dead(weight_shift: Array | None) -> ModelBuilder:
    """Channel 1: weights of at most 1e-4 and a bias of 1, as folding leaves them, behind a fine quantizer."""
    b = ModelBuilder(HW)
    x = b.unit("first", b.image(), 6, kernel=1, shift=12)
    weight = b.rng("dead").standard_normal((4, 6, 1, 1)) * 0.2
    weight[1] = np.linspace(-1e-4, 1e-4, 6)[:, None, None]
    b.unit("dead", x, 4, kernel=1, values=(weight, np.array([0.1, 1.0, -0.2, 0.3])), weight_shift=weight_shift, shift=6)
    return b


def test_nearly_dead_channels_pass_when_their_shifts_were_chosen_under_the_bound() -> None:
    b = nearly_dead(None)
    model = b.finish({"out": "/dead/quantizer/DequantizeLinear_output_0"})
    module, parameters, _ = integer_module(model)
    certify(module, parameters)
    picture = random_picture(HW, 0)
    (got,) = run_integer(module, parameters, picture)
    assert np.array_equal(got, np.ldexp(run_onnx(model, picture)["out"].transpose(0, 2, 3, 1), 6))
    # the largest shift that fits the weights alone breaks the bound by the bias
    greedy = nearly_dead(np.array([6, 14, 6, 6])).finish({"out": "/dead/quantizer/DequantizeLinear_output_0"})
    module, parameters, _ = integer_module(greedy)
    with pytest.raises(CertificateError, match=r"layer dead\.conv \(conv\), channel 1"):
        certify(module, parameters)
