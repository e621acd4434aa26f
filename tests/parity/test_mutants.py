"""The harness itself: a wrong rule, or one unit of one bias, in any one party must show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from quant import arith, postprocess
from tests.parity import harness
from tests.parity.harness import COMPILED, NUMPY, ONNX_LAYERS, RELAX, TORCH, Parties
from tests.parity.operators import CONVOLUTIONS, ConvolutionCase, freeze_at
from tests.parity.parts import Bench, pictures
from tests.parity.trial import Trial, differences
from train.steps import snap

Array = np.ndarray
real_convolve, real_conv_layer, real_average_pool = arith.convolve, arith.conv_layer, arith.average_pool


def half_up(a: Any, n: Any) -> Any:
    return (np.asarray(a, np.int64) + ((np.int64(1) << np.asarray(n)) >> 1)) >> n


def half_away(a: Any, n: Any) -> Any:
    a = np.asarray(a, np.int64)
    return np.sign(a) * half_up(np.abs(a), n)


def floor(a: Any, n: Any) -> Any:
    return np.asarray(a, np.int64) >> n


def padded_with(pixel: int) -> Any:
    """The border stands for another pixel than 128."""

    def mutant(x: Array, weight: Array, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
        border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        return real_convolve(np.pad(x, border, constant_values=pixel - 128), weight, stride=stride, groups=groups)

    return mutant


def repeating_the_edge(x: Array, weight: Array, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return real_convolve(np.pad(x, border, mode="edge"), weight, stride=stride, groups=groups)


def at_odd_pixels(x: Array, weight: Array, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    rolled = np.roll(x, -1, axis=2) if stride == 2 else x
    return real_convolve(rolled, weight, stride=stride, padding=padding, groups=groups)


def groups_in_another_order(x: Array, weight: Array, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    other = np.roll(x, weight.shape[3] if groups > 1 else 0, axis=3)
    return real_convolve(other, weight, stride=stride, padding=padding, groups=groups)


def residual_off_its_grid(*args: Any, residual_shift: int | None = None, **settings: Any) -> Array:
    off = None if residual_shift is None else residual_shift + 1
    return real_conv_layer(*args, residual_shift=off, **settings)


def residual_after_rounding(
    *args: Any, residual: Array | None, residual_shift: int | None, relu: bool, out_shift: int, **settings: Any
) -> Array:
    if residual is None or residual_shift is None:
        return real_conv_layer(*args, relu=relu, out_shift=out_shift, **settings)
    rounded = real_conv_layer(*args, out_shift=out_shift, **settings)
    return arith.add_layer(rounded, out_shift, residual, residual_shift, relu=relu, out_shift=out_shift)


def one_shift_for_all_channels(acc: Any, acc_shift: Any, out_shift: int) -> Array:
    n = int(np.max(acc_shift)) - out_shift
    return arith.saturate(np.rint(np.ldexp(np.asarray(acc, np.float64), -n)).astype(np.int64)).astype(np.int8)


def relu_before_the_residual(*args: Any, relu: bool, residual: Array | None = None, **settings: Any) -> Array:
    return real_conv_layer(*args, relu=relu and residual is None, residual=residual, **settings)


def cropped_at_the_top(x: Array, out_hw: tuple[int, int]) -> Array:
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, -out_hw[0] :, -out_hw[1] :]


def pooled_to_the_floor(x: Array, kernel: int, stride: int, x_shift: int, out_shift: int) -> Array:
    finer = real_average_pool(x, kernel, stride, x_shift, 12).astype(np.int64)
    return arith.saturate(finer >> (12 - out_shift)).astype(np.int8)


def last_on_a_tie(x: Array) -> Array:
    return (x.shape[-1] - 1 - np.argmax(x[..., ::-1], axis=-1)).astype(np.uint8)


def ties_from_behind(rows: Array) -> Array:
    return rows[::-1][np.argsort(-rows[::-1, 4], kind="stable")]


def toward_zero(value: Array, shift: int) -> Array:
    return np.sign(value) * (np.abs(value) >> shift) if shift >= 0 else value << -shift


# attribute of quant.arith or quant.postprocess, its mutant, a trial that must notice, and one of the layers there
MUTANTS: list[tuple[str, Any, str, str]] = [
    ("arith.divide_half_even", half_up, "convolutions", "pointwise_signed.unit.conv"),
    ("arith.divide_half_even", half_away, "convolutions", "odd_groups.unit.conv"),
    ("arith.divide_half_even", floor, "convolutions", "depthwise.unit.conv"),
    ("arith.divide_half_even", half_up, "pointwise", "add_far_apart.sum"),
    ("arith.divide_half_even", half_away, "pointwise", "concatenation"),
    ("arith.divide_half_even", half_up, "blocks", "neck.neck.sums.0"),
    ("arith.saturate", lambda value: value, "convolutions", "pointwise.unit.conv"),
    ("arith.saturate", lambda value: np.clip(value, -127, 127), "convolutions", "mixed_residual.unit.conv"),
    ("arith.saturate", lambda value: np.clip(value, -127, 127), "pointwise", "pool"),
    ("arith.saturate", lambda value: value, "blocks", "block_merge.block.merge"),
    ("arith.convolve", padded_with(0), "convolutions", "two_groups.unit.conv"),
    ("arith.convolve", padded_with(127), "convolutions", "eight_groups.unit.conv"),
    ("arith.convolve", padded_with(129), "convolutions", "negative_shift.unit.conv"),
    ("arith.convolve", repeating_the_edge, "convolutions", "stride_2.unit.conv"),
    ("arith.convolve", at_odd_pixels, "convolutions", "pointwise_stride_2.unit.conv"),
    ("arith.convolve", groups_in_another_order, "convolutions", "eight_groups_stride_2.unit.conv"),
    ("arith.align", lambda x, before, after: np.asarray(x, np.int64), "convolutions", "coarser_residual.unit.conv"),
    ("arith.align", lambda x, before, after: np.asarray(x, np.int64), "convolutions", "finer_residual.unit.conv"),
    ("arith.align", lambda x, before, after: np.asarray(x, np.int64), "pointwise", "add_relu.sum"),
    ("arith.conv_layer", residual_off_its_grid, "convolutions", "mixed_residual.unit.conv"),
    ("arith.conv_layer", residual_after_rounding, "convolutions", "finer_residual_relu.unit.conv"),
    ("arith.conv_layer", residual_after_rounding, "blocks", "block.block.second.pointwise.conv"),
    ("arith.conv_layer", relu_before_the_residual, "convolutions", "coarser_residual.unit.conv"),
    ("arith.requantize", one_shift_for_all_channels, "convolutions", "odd_channels.unit.conv"),
    ("arith.quantize_pixels", lambda p: (p.astype(np.int16) - 127).clip(-128, 127).astype(np.int8), "heads", "image"),
    ("arith.upsample2x", cropped_at_the_top, "pointwise", "upsampling.sum"),
    ("arith.upsample2x", cropped_at_the_top, "blocks", "neck.neck.sums.1"),
    ("arith.average_pool", pooled_to_the_floor, "pointwise", "pool_4"),
    ("arith.concat", lambda parts, out: np.concatenate([x for x, _ in parts], axis=-1), "pointwise", "concatenation"),
    ("arith.channel_argmax", last_on_a_tie, "heads", "seg_default.mask"),
    ("postprocess.best_first", ties_from_behind, "heads", "det_person.boxes"),
    (
        "postprocess.suppress",
        lambda rows, attributes: rows[: attributes.nms_output_bbox_num],
        "heads",
        "det_person.boxes",
    ),
    ("postprocess._shift_right", toward_zero, "heads", "det_vehicle_sign.packed"),
]


@pytest.mark.parametrize(("rule", "mutant", "trial", "layer"), MUTANTS)
def test_a_wrong_rule_is_noticed(
    rule: str,
    mutant: Callable[..., Any],
    trial: str,
    layer: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: Trial = request.getfixturevalue(trial)
    assert found.with_numpy_anew().differences() == []
    module, name = rule.split(".")
    monkeypatch.setattr({"arith": arith, "postprocess": postprocess}[module], name, mutant)
    with np.errstate(over="ignore"):
        assert layer in {difference.layer for difference in found.with_numpy_anew().differences()}


@pytest.fixture
def bench() -> Bench:
    rng = np.random.default_rng(0)
    bench = Bench({name: ConvolutionCase(CONVOLUTIONS[name], rng) for name in ("stride_2", "mixed_residual")}).eval()
    snap(bench)
    return bench


FAULTY = "stride_2.unit.conv"
HW = (48, 72)


def off_by_one(parameters: dict[str, Array]) -> dict[str, Array]:
    bias = parameters[f"{FAULTY}.bias"].copy()
    bias[3] += 1
    return parameters | {f"{FAULTY}.bias": bias}


def parties_that_differ(parties: Parties) -> dict[str, str]:
    """The first layer by party."""
    first: dict[str, str] = {}
    for difference in Trial.of(parties, pictures(HW, 4)).differences():
        first.setdefault(difference.party, difference.layer)
    return first


def test_without_a_fault_all_agree(bench: Bench, tmp_path: Path) -> None:
    assert parties_that_differ(Parties(bench, HW, bench.cases, tmp_path)) == {}


def test_one_unit_of_one_bias_in_the_kernels_is_noticed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = harness.compile_module
    monkeypatch.setattr(harness, "compile_module", lambda module, p, target: real(module, off_by_one(p), target))
    assert parties_that_differ(Parties(bench, HW, bench.cases, tmp_path)) == {COMPILED: FAULTY}


def test_one_unit_of_one_bias_in_relax_is_noticed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = harness._reference_vm
    monkeypatch.setattr(harness, "_reference_vm", lambda module, p: real(module, off_by_one(p)))
    assert parties_that_differ(Parties(bench, HW, bench.cases, tmp_path)) == {RELAX: FAULTY}


def test_one_step_of_one_shift_in_torch_is_noticed(bench: Bench, tmp_path: Path) -> None:
    parties = Parties(bench, HW, bench.cases, tmp_path)
    quantizer = bench.get_submodule(FAULTY.removesuffix(".conv")).quantizer
    freeze_at(quantizer, int(quantizer.shift) + 1)
    assert parties_that_differ(parties) == {TORCH: FAULTY}


def test_one_unit_of_one_bias_in_the_export_is_noticed(bench: Bench, tmp_path: Path) -> None:
    parties = Parties(bench, HW, bench.cases, tmp_path)
    model = onnx.load(parties.path)
    (entry,) = (entry for entry in model.graph.initializer if entry.name == f"{FAULTY}.bias")
    bias = numpy_helper.to_array(entry).copy()
    unit = bench.get_submodule(FAULTY.removesuffix(".conv"))
    bias[3] += 2.0 ** -float(unit.weight_shift[3] + CONVOLUTIONS["stride_2"].in_shift)
    entry.CopyFrom(numpy_helper.from_array(bias, entry.name))
    onnx.save(model, parties.path)
    everyone = Trial.of(parties, pictures(HW, 4)).results[0].keys()
    assert parties_that_differ(parties) == dict.fromkeys(everyone - {NUMPY, TORCH, RELAX, COMPILED}, FAULTY)
    assert ONNX_LAYERS in everyone


@torch.no_grad()
def test_a_value_off_the_grid_is_noticed(convolutions: Trial) -> None:
    results = dict(convolutions.results[0])
    values = {name: value.copy() for name, value in results[TORCH].items()}
    values[FAULTY][0, 3, 4, 5] += 2.0**-20
    (found,) = differences(results | {TORCH: values})
    assert str(found).startswith(f"{TORCH}: {FAULTY}: 1 of")
    assert "(0, 3, 4, 5)" in str(found)
