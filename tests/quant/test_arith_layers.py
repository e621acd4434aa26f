"""The layers of quant.arith against real numbers: float64 holds every value of these sizes exactly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant import arith
from quant.errors import QuantError

Array = np.ndarray


def int8(rng: np.random.Generator, *shape: int, low: int = -128) -> Array:
    """Random int8 with the two extremes drawn often."""
    values = rng.integers(low, 128, shape)
    extremes = rng.choice([low, 127], shape)
    return np.where(rng.random(shape) < 0.3, extremes, values).astype(np.int8)


def real(q: Array, shift: Any) -> Array:
    return np.ldexp(q.astype(np.float64), -np.asarray(shift))


def to_int8(value: Array, shift: int) -> Array:
    return np.clip(np.rint(np.ldexp(value, shift)), -128, 127).astype(np.int8)


def real_convolution(x: Array, weight: Array, stride: int, padding: int, groups: int) -> Array:
    """Slow and obvious: every output position and channel on its own, over an explicitly filled border."""
    batch, height, width, channels = x.shape
    out_channels, kernel_h, kernel_w, group_in = weight.shape
    padded = np.zeros((batch, height + 2 * padding, width + 2 * padding, channels))
    padded[:, padding : padding + height, padding : padding + width] = x
    out_h = (height + 2 * padding - kernel_h) // stride + 1
    out_w = (width + 2 * padding - kernel_w) // stride + 1
    out = np.empty((batch, out_h, out_w, out_channels))
    for channel in range(out_channels):
        first = channel // (out_channels // groups) * group_in
        for row in range(out_h):
            for column in range(out_w):
                top, left = row * stride, column * stride
                window = padded[:, top : top + kernel_h, left : left + kernel_w, first : first + group_in]
                out[:, row, column, channel] = (window * weight[channel]).sum(axis=(1, 2, 3))
    return out


def check_convolve(seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    cases = [(3, 1, 1, 1), (3, 2, 1, 2), (1, 1, 0, 1), (3, 1, 1, 4), (1, 2, 0, 2), (5, 2, 2, 1), (3, 2, 0, 4)]
    for kernel, stride, padding, groups in cases:
        x, weight = int8(rng, 2, 7, 9, 8), int8(rng, 4, kernel, kernel, 8 // groups, low=-127)
        got = arith.convolve(x, weight, stride=stride, padding=padding, groups=groups)
        assert got.dtype == np.int64
        assert np.array_equal(got, real_convolution(x, weight, stride, padding, groups))


def check_convolve_beyond_float32() -> None:
    """Sums that float32 cannot hold: 2^24 and more, odd."""
    x = np.full((1, 3, 3, 300), 127, np.int8)
    weight = np.full((1, 3, 3, 300), 127, np.int8)
    weight[0, 0, 0, 0] = 126
    expected = 127 * 127 * 2700 - 127
    assert expected > arith.ACCUMULATOR_LIMIT
    assert expected % 2
    assert arith.convolve(x, weight).item() == expected


def layer_case(rng: np.random.Generator, residual: bool) -> tuple[dict[str, Any], Array, Array]:
    """Random arguments of conv_layer, the real accumulator and the real residual."""
    groups = int(rng.choice([1, 2, 4]))
    stride = int(rng.choice([1, 2]))
    x, weight = int8(rng, 1, 6, 5, 8), int8(rng, 8, 3, 3, 8 // groups, low=-127)
    weight_shift = rng.integers(-2, 12, 8)
    x_shift = int(rng.integers(-2, 10))
    arguments: dict[str, Any] = {
        "x": x,
        "x_shift": x_shift,
        "weight": weight,
        "weight_shift": weight_shift,
        "bias": rng.integers(-60000, 60000, 8).astype(np.int32),
        "stride": stride,
        "padding": 1,
        "groups": groups,
        "relu": bool(rng.integers(2)),
        "out_shift": int(rng.integers(-4, 13)),
    }
    accumulator = real_convolution(real(x, x_shift), real(weight, weight_shift[:, None, None, None]), stride, 1, groups)
    accumulator += real(arguments["bias"], x_shift + weight_shift)
    added = np.zeros_like(accumulator)
    if residual:
        arguments["residual"] = int8(rng, *accumulator.shape)
        arguments["residual_shift"] = int(rng.integers(-4, 13))
        added = real(arguments["residual"], arguments["residual_shift"])
    return arguments, accumulator, added


def check_conv_layer() -> None:
    saturated = between = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        arguments, accumulator, added = layer_case(rng, residual=seed % 2 == 1)
        total = accumulator + added
        if arguments["relu"]:
            total = np.maximum(total, 0)
        got = arith.conv_layer(**arguments)
        assert got.dtype == np.int8
        assert np.array_equal(got, to_int8(total, arguments["out_shift"])), f"seed {seed}"
        scaled = np.ldexp(total, arguments["out_shift"])
        saturated += int((np.abs(scaled) > 128).sum())
        between += int((np.abs(scaled) < 127).sum())
    assert min(saturated, between) > 1000, "the inputs must saturate, and must not"


def check_residual_tie() -> None:
    """One rounding, at the end: rounding the convolution before the addition would give another number."""
    one = np.ones((1, 1, 1, 1), np.int8)
    got = arith.conv_layer(
        one, 1, one, np.array([0]), np.zeros(1, np.int32), out_shift=0, residual=one, residual_shift=1
    )
    assert got.item() == 1, "0.5 + 0.5; rounded apart it would be 0"


def check_add_layer() -> None:
    """Every pair of int8 on every kind of shifts."""
    a, b = (grid.astype(np.int8)[None, ..., None] for grid in np.mgrid[-128:128, -128:128])
    for a_shift, b_shift, out_shift, relu in [(4, 4, 4, True), (4, 6, 4, False), (7, 3, 5, True), (0, 12, -4, False)]:
        total = real(a, a_shift) + real(b, b_shift)
        expected = to_int8(np.maximum(total, 0) if relu else total, out_shift)
        assert np.array_equal(arith.add_layer(a, a_shift, b, b_shift, relu=relu, out_shift=out_shift), expected)


def check_concat() -> None:
    rng = np.random.default_rng(5)
    parts = [(int8(rng, 1, 3, 4, channels), shift) for channels, shift in [(2, 4), (3, 7), (1, -1)]]
    expected = np.concatenate([to_int8(real(x, shift), 5) for x, shift in parts], axis=3)
    assert np.array_equal(arith.concat(parts, 5), expected)


def check_average_pool() -> None:
    """Against rationals scaled to integers: 2·Σq·2^k compared with odd multiples, no float quotient anywhere."""
    rng = np.random.default_rng(6)
    for kernel, stride, x_shift, out_shift in [(2, 2, 4, 4), (2, 1, 4, 6), (3, 3, 5, 5), (3, 2, 5, 3), (4, 4, 3, 1)]:
        x = int8(rng, 1, 9, 8, 3)
        got = arith.average_pool(x, kernel, stride, x_shift, out_shift)
        for row in range(got.shape[1]):
            for column in range(got.shape[2]):
                top, left = row * stride, column * stride
                for channel in range(3):
                    total = int(x[0, top : top + kernel, left : left + kernel, channel].sum(dtype=np.int64))
                    numerator = total << 8 + out_shift - x_shift
                    expected = max(-128, min(127, nearest_even(numerator, kernel * kernel << 8)))
                    assert got[0, row, column, channel] == expected


def nearest_even(numerator: int, denominator: int) -> int:
    candidates = (numerator // denominator, numerator // denominator + 1)
    return min(candidates, key=lambda q: (abs(numerator - q * denominator), q % 2))


def check_average_pool_ties() -> None:
    windows = np.array([[1, 1, 0, 0], [1, 1, 1, 3], [-1, -1, 0, 0], [-3, -1, -1, -1], [3, 3, 2, 2]], np.int8)
    x = windows.reshape(5, 2, 2, 1)
    assert arith.average_pool(x, 2, 2, 4, 4).ravel().tolist() == [0, 2, 0, -2, 2]


def check_upsample() -> None:
    x = np.arange(6, dtype=np.int8).reshape(1, 2, 3, 1)
    assert arith.upsample2x(x, (4, 6))[0, ..., 0].tolist() == [
        [0, 0, 1, 1, 2, 2],
        [0, 0, 1, 1, 2, 2],
        [3, 3, 4, 4, 5, 5],
        [3, 3, 4, 4, 5, 5],
    ]
    assert arith.upsample2x(x, (3, 5))[0, ..., 0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    with pytest.raises(QuantError, match="or one less"):
        arith.upsample2x(x, (5, 6))


def check_argmax() -> None:
    """Every triple over a few values, ties in every position among them."""
    values = np.array([-128, -1, 0, 127], np.int8)
    triples = np.array(np.meshgrid(values, values, values)).reshape(3, -1).T.reshape(1, 8, 8, 3)
    expected = [max(range(3), key=lambda c, t=t: (t[c], -c)) for t in triples.reshape(-1, 3).tolist()]
    got = arith.channel_argmax(triples)
    assert got.dtype == np.uint8
    assert got.ravel().tolist() == expected


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_exact(check: Callable[[], None]) -> None:
    check()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_any_conv_layer(seed: int, residual: bool) -> None:
    arguments, accumulator, added = layer_case(np.random.default_rng(seed), residual)
    total = accumulator + added
    total = np.maximum(total, 0) if arguments["relu"] else total
    assert np.array_equal(arith.conv_layer(**arguments), to_int8(total, arguments["out_shift"]))


def test_what_does_not_fit_is_refused() -> None:
    x, weight = np.zeros((1, 4, 4, 8), np.int8), np.zeros((4, 3, 3, 4), np.int8)
    with pytest.raises(QuantError, match="does not fit 8 channels in 1 groups"):
        arith.convolve(x, weight)
    with pytest.raises(QuantError, match="takes int8"):
        arith.convolve(x.astype(np.float32), weight, groups=2)  # type: ignore[arg-type]
    with pytest.raises(QuantError, match="NHWC"):
        arith.convolve(x[0], weight, groups=2)
    with pytest.raises(QuantError, match="equal shapes"):
        arith.add_layer(x, 0, x[:, :2], 0, out_shift=0)
    with pytest.raises(QuantError, match="256 classes"):
        arith.channel_argmax(np.zeros((1, 1, 1, 257), np.int8))


original_convolve, original_conv_layer, original_requantize = arith.convolve, arith.conv_layer, arith.requantize


def wrong_padding(x: Array, weight: Array, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    """Pads with pixel 0, which is q = -128."""
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-128)
    return original_convolve(padded, weight, stride=stride, groups=groups)


def flipped(x: Array, weight: Array, **settings: int) -> Array:
    return original_convolve(x, weight[:, ::-1, ::-1], **settings)


def ungrouped_order(x: Array, weight: Array, *, groups: int = 1, **settings: int) -> Array:
    """Takes the channels of a group with a stride instead of a block."""
    order = np.arange(x.shape[3]).reshape(-1, groups).T.ravel()
    return original_convolve(x[..., order], weight, groups=groups, **settings)


def float32_sum(x: Array, weight: Array, **_: int) -> Array:
    return np.cumsum((x.astype(np.float32) * weight).ravel(), dtype=np.float32)[-1:].astype(np.int64)


def wrapping_int8(x: Array, weight: Array, **settings: int) -> Array:
    return original_convolve(x, weight, **settings).astype(np.int8).astype(np.int64)


def half_up(acc: Array, acc_shift: Any, out_shift: int) -> Array:
    n = np.asarray(acc_shift) - out_shift
    return np.clip(np.floor(np.ldexp(np.asarray(acc, np.float64), -n) + 0.5), -128, 127).astype(np.int8)


def no_saturation(acc: Array, acc_shift: Any, out_shift: int) -> Array:
    n = np.asarray(acc_shift) - out_shift
    return np.rint(np.ldexp(np.asarray(acc, np.float64), -n)).astype(np.int64).astype(np.int8)


def coarser_grid(x: Array, shift_from: Any, shift_to: Any) -> Array:
    return np.asarray(x, np.int64)


def add_after_rounding(a: Array, a_shift: int, b: Array, b_shift: int, *, relu: bool = False, out_shift: int) -> Array:
    first, second = (original_requantize(x, s, out_shift).astype(int) for x, s in ((a, a_shift), (b, b_shift)))
    total = np.maximum(first + second, 0) if relu else first + second
    return np.clip(total, -128, 127).astype(np.int8)


def rounded_pool(x: Array, kernel: int, stride: int, x_shift: int, out_shift: int) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    mean = windows.mean(axis=(-2, -1)) * 2.0 ** (out_shift - x_shift)
    return np.clip(np.floor(mean + 0.5), -128, 127).astype(np.int8)


def round_before_residual(x: Array, x_shift: int, *arguments: Array, **settings: Any) -> Array:
    residual, residual_shift = settings.pop("residual", None), settings.pop("residual_shift", None)
    out = original_conv_layer(x, x_shift, *arguments, **settings)
    return (
        out
        if residual is None
        else arith.add_layer(out, settings["out_shift"], residual, residual_shift, out_shift=settings["out_shift"])
    )


MUTANTS: list[tuple[str, Any, Callable[[], None]]] = [
    ("conv_layer", round_before_residual, check_residual_tie),
    ("convolve", wrong_padding, check_convolve),
    ("convolve", wrong_padding, check_conv_layer),
    ("convolve", flipped, check_convolve),
    ("convolve", ungrouped_order, check_convolve),
    ("convolve", float32_sum, check_convolve_beyond_float32),
    ("ACCUMULATOR_LIMIT", 1 << 40, check_convolve_beyond_float32),
    ("convolve", wrapping_int8, check_conv_layer),
    ("requantize", half_up, check_conv_layer),
    ("requantize", half_up, check_add_layer),
    ("requantize", half_up, check_concat),
    ("requantize", no_saturation, check_conv_layer),
    ("requantize", no_saturation, check_add_layer),
    ("requantize", no_saturation, check_concat),
    ("align", coarser_grid, check_conv_layer),
    ("align", coarser_grid, check_add_layer),
    ("add_layer", add_after_rounding, check_add_layer),
    ("concat", lambda parts, _: np.concatenate([x for x, _ in parts], axis=3), check_concat),
    ("average_pool", rounded_pool, check_average_pool),
    ("average_pool", rounded_pool, check_average_pool_ties),
    ("saturate", lambda value: value & 127, check_average_pool),
    ("upsample2x", lambda x, hw: np.tile(x, (1, 2, 2, 1))[:, : hw[0], : hw[1]], check_upsample),
    ("upsample2x", lambda x, hw: x.repeat(2, 1).repeat(2, 2)[:, -hw[0] :, -hw[1] :], check_upsample),
    ("channel_argmax", lambda x: (x.shape[3] - 1 - x[..., ::-1].argmax(axis=3)).astype(np.uint8), check_argmax),
    ("channel_argmax", lambda x: x.view(np.uint8).argmax(axis=3).astype(np.uint8), check_argmax),
]


@pytest.mark.parametrize(("name", "mutant", "check"), MUTANTS)
def test_mutants_are_noticed(
    name: str, mutant: Any, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arith, name, mutant)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()
