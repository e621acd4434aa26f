"""Fake quantization is the integer arithmetic: single layers, a block and a small network against `quant.arith`."""

import numpy as np
import pytest
import torch
from torch import Tensor

from quant import arith
from quant.certificate import conv_bound
from quant.fake import ActivationQuantizer, ElementwiseAdd, QuantConv2d, QuantTensor, upsample2x
from quant.observer import PeakObserver
from quant.params import quantize_bias, quantize_weight


def integers(x: QuantTensor) -> np.ndarray:
    """The int8 NHWC tensor that an activation stands for; fails unless it is one."""
    q = x.value.detach().double().numpy() * 2.0**x.shift
    assert (q == np.rint(q)).all()
    assert q.min() >= -128
    assert q.max() <= 127
    return q.astype(np.int8).transpose(0, 2, 3, 1)


def activation(rng: np.random.Generator, shape: tuple[int, ...], shift: int, *, relu: bool = False) -> QuantTensor:
    q = rng.integers(0 if relu else -128, 128, shape)
    return QuantTensor(torch.from_numpy(q * 2.0**-shift).float(), shift, 127 if relu else 128)


def absorbed(unit: QuantConv2d, rng: np.random.Generator, *, shift: int) -> QuantConv2d:
    """The unit with random statistics, folded, frozen at output shift `shift`."""
    assert unit.bn is not None
    assert unit.quantizer is not None
    with torch.no_grad():
        for tensor, low, high in ((unit.bn.weight, -2, 2), (unit.bn.bias, -1, 1), (unit.bn.running_mean, -1, 1)):
            assert tensor is not None
            tensor.copy_(torch.from_numpy(rng.uniform(low, high, tensor.shape)))
        assert unit.bn.running_var is not None
        unit.bn.running_var.copy_(torch.from_numpy(rng.uniform(0.1, 2, unit.bn.running_var.shape)))
    unit.absorb_batch_norm()
    unit.quantizer.shift.fill_(shift)
    unit.quantizer.frozen.fill_(True)
    return unit.eval()


def reference(unit: QuantConv2d, x: QuantTensor, residual: QuantTensor | None = None) -> np.ndarray:
    """The layer by `quant.arith`."""
    assert unit.quantizer is not None
    assert unit.conv.bias is not None
    weight = unit.conv.weight.detach().numpy().transpose(0, 2, 3, 1)
    shift = unit.weight_shift.numpy()
    return arith.conv_layer(
        integers(x),
        x.shift,
        quantize_weight(weight, shift),
        shift,
        quantize_bias(unit.conv.bias.detach().numpy(), shift + x.shift),
        stride=unit.conv.stride[0],
        padding=unit.conv.padding[0],  # type: ignore[arg-type]
        groups=unit.conv.groups,
        relu=unit.relu,
        out_shift=int(unit.quantizer.shift),
        residual=None if residual is None else integers(residual),
        residual_shift=None if residual is None else residual.shift,
    )


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shift", [-4, 0, 5, 12])
def test_rounding_is_that_of_torch_ties_and_extremes_included(shift: int, relu: bool) -> None:
    rng = np.random.default_rng(shift + 4)
    halves = np.arange(-600, 600) / 2 * 2.0**-shift
    wild = rng.normal(0, 2.0**-shift * 100, 4000)
    huge = np.array([1e30, -1e30, 2.0**40, -(2.0**40), 1.5 * 2**23, -1.5 * 2**23, 2.0**22, -(2.0**22)])
    value = torch.from_numpy(np.concatenate([halves, wild, huge])).float().reshape(1, 1, 1, -1)
    quantizer = ActivationQuantizer().eval()
    quantizer.shift.fill_(shift)
    expected = torch.fake_quantize_per_tensor_affine(value.clone().relu() if relu else value, 2.0**-shift, 0, -128, 127)
    finite = value.abs() < 2.0**30  # beyond, torch's own conversion to an integer overflows
    found = quantizer(value, relu=relu).value
    assert torch.equal(found[finite], expected[finite])
    assert found[..., -8].item() == 127 * 2.0**-shift
    quantizer.snapped = True
    assert torch.equal(quantizer(value, relu=relu).value[finite], expected[finite])


def test_gradient_passes_inside_the_range_only() -> None:
    quantizer = ActivationQuantizer().eval()
    quantizer.shift.fill_(0)
    value = torch.tensor([-500.0, -3.2, 0.7, 90.3, 500.0], requires_grad=True)
    quantizer(value.reshape(1, 1, 1, -1) * 1.0).value.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0, 1, 1, 1, 0]


def test_what_a_relu_rounds_to_zero_has_a_gradient() -> None:
    quantizer = ActivationQuantizer().eval()
    quantizer.shift.fill_(0)
    value = torch.tensor([-0.3, 0.0, 0.3, 126.8, 127.2], requires_grad=True)
    rounded = quantizer(value.reshape(1, 1, 1, -1) * 1.0, relu=True).value
    assert rounded.flatten().tolist() == [0, 0, 0, 127, 127]
    rounded.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("is_quantized", [False, True])
def test_frozen_batch_norms_train_on_what_is_folded(is_quantized: bool) -> None:
    torch.manual_seed(0)
    unit = QuantConv2d(3, 4, 3, relu=True)
    unit.quantized = unit.quantizer.quantized = is_quantized
    for _ in range(3):
        unit(activation(np.random.default_rng(1), (2, 3, 8, 8), 4))
    for module in (unit, unit.quantizer):
        module.frozen.fill_(True)
    before = unit.bn.running_mean.clone(), unit.bn.running_var.clone(), unit.bn.num_batches_tracked.clone()
    unusual = activation(np.random.default_rng(2), (2, 3, 8, 8), 2)
    trained = unit(unusual).value
    assert torch.equal(trained, unit.eval()(unusual).value)
    assert all(map(torch.equal, before, (unit.bn.running_mean, unit.bn.running_var, unit.bn.num_batches_tracked)))
    trained.sum().backward()
    assert unit.bn.weight.grad is not None


def test_overwriting_in_place_spares_leaves() -> None:
    value = torch.full((1, 1, 1, 1), 0.3)
    ActivationQuantizer().eval()(value)
    assert value.item() == pytest.approx(0.3)


@pytest.mark.parametrize("seed", range(12))
def test_convolution_is_the_integer_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    groups, kernel, stride = int(rng.choice([1, 2, 4])), int(rng.choice([1, 3])), int(rng.choice([1, 2]))
    unit = QuantConv2d(8, 16, kernel, stride=stride, groups=groups, relu=bool(seed % 2))
    absorbed(unit, rng, shift=int(rng.integers(2, 8)))
    x = activation(rng, (2, 8, 9, 7), int(rng.integers(0, 9)), relu=bool(rng.integers(2)))
    size = ((9 + stride - 1) // stride, (7 + stride - 1) // stride)
    residual = activation(rng, (2, 16, *size), int(rng.integers(-2, 10))) if seed % 3 else None
    unit(x, residual)  # chooses the weight shifts
    expected = reference(unit, x, residual)
    assert np.array_equal(integers(unit(x, residual)), expected)
    unit.snap(x, residual)
    assert np.array_equal(integers(unit(x, residual)), expected)
    assert np.abs(quantize_weight(unit.conv.weight.detach().numpy(), unit.weight_shift.numpy())).max() <= 127


def test_nearly_dead_channels_keep_the_bound() -> None:
    unit = QuantConv2d(8, 4, batch_norm=False)
    assert unit.conv.bias is not None
    with torch.no_grad():
        unit.conv.weight.fill_(1e-4)
        unit.conv.bias.fill_(1.0)
    x = activation(np.random.default_rng(0), (1, 8, 3, 3), 12)
    unit.eval()(x)
    unit.snap(x)
    assert bound(unit, x) < 2**24


def test_after_freezing_the_bias_stays_under_the_bound() -> None:
    rng = np.random.default_rng(0)
    unit = QuantConv2d(8, 4, batch_norm=False).eval()
    x, residual = activation(rng, (1, 8, 3, 3), 9), activation(rng, (1, 4, 3, 3), 3)
    unit(x, residual)
    unit.frozen.fill_(True)
    assert unit.conv.bias is not None
    with torch.no_grad():
        unit.conv.bias.fill_(1e6)
        unit.conv.weight.mul_(50)
    before = unit(x, residual).value
    unit.snap(x, residual)
    assert torch.equal(unit(x, residual).value, before)
    assert bound(unit, x, residual) == pytest.approx(2**24 - 1, abs=2**8)
    assert bound(unit, x, residual) < 2**24


def bound(unit: QuantConv2d, x: QuantTensor, residual: QuantTensor | None = None) -> int:
    assert unit.conv.bias is not None
    shift = unit.weight_shift.numpy()
    return conv_bound(
        quantize_weight(unit.conv.weight.detach().numpy(), shift),
        shift,
        quantize_bias(unit.conv.bias.detach().numpy(), shift + x.shift),
        input_shift=x.shift,
        input_max=x.maximum,
        residual_shift=None if residual is None else residual.shift,
    ).float_bound


def test_absorbing_changes_a_float_layer_by_rounding_only() -> None:
    rng = np.random.default_rng(3)
    unit = QuantConv2d(8, 16, 3, groups=2).eval()
    unit.quantized = unit.quantizer.quantized = False  # type: ignore[union-attr]
    unit.bn.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
    x = activation(rng, (1, 8, 5, 5), 5)
    before = unit(x).value.detach()
    unit.absorb_batch_norm()
    assert unit.bn is None
    torch.testing.assert_close(unit(x).value, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("a", "b", "out"), [(7, 4, 5), (0, 12, 3), (-4, 12, -4), (5, 5, 8)])
@pytest.mark.parametrize("relu", [False, True])
def test_addition_is_the_integer_one(a: int, b: int, out: int, relu: bool) -> None:
    rng = np.random.default_rng(a + b)
    left, right = activation(rng, (1, 4, 6, 5), a), activation(rng, (1, 4, 6, 5), b)
    add = ElementwiseAdd(relu=relu).eval()
    add.quantizer.shift.fill_(out)
    expected = arith.add_layer(integers(left), a, integers(right), b, relu=relu, out_shift=out)
    assert np.array_equal(integers(add(left, right)), expected)


def test_upsampling_is_the_integer_one_cropped() -> None:
    x = activation(np.random.default_rng(0), (1, 4, 3, 4), 3)
    assert np.array_equal(integers(upsample2x(x, 5, 7)), arith.upsample2x(integers(x), (5, 7)))


def test_batch_norm_statistics_are_true_after_one_batch() -> None:
    torch.manual_seed(0)
    unit = QuantConv2d(3, 8).train()
    unit(QuantTensor(torch.randn(4, 3, 8, 8) * 5, 4, 128))
    assert unit.bn is not None
    plain: Tensor = torch.nn.functional.conv2d(torch.randn(4, 3, 8, 8) * 5, unit.conv.weight)
    assert unit.bn.running_var is not None
    torch.testing.assert_close(unit.bn.running_var, plain.var(dim=(0, 2, 3)), rtol=0.5, atol=0.1)


def test_least_shift_lets_the_far_end_saturate() -> None:
    quantizer = ActivationQuantizer(PeakObserver, least_shift=3).train()
    assert quantizer(torch.full((1, 1, 2, 2), -40.0)).shift == 3
    assert quantizer(torch.full((1, 1, 2, 2), -40.0)).value.min() == -16


def test_unfrozen_shifts_follow_training_and_frozen_ones_do_not() -> None:
    quantizer = ActivationQuantizer().train()
    quantizer(torch.randn(1, 8, 16, 16))
    first = int(quantizer.shift)
    assert first in (4, 5, 6)
    quantizer.frozen.fill_(True)
    quantizer(torch.randn(1, 8, 16, 16) * 64)
    assert int(quantizer.shift) == first
