"""Folding against the unfolded graph: convolution, then batch norm, in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.errors import QuantError
from quant.fold import fold_batch_norm

Array = np.ndarray
EPSILON = 1e-5


def convolution(x: Array, weight: Array, bias: Array | None, groups: int) -> Array:
    """x (C,H,W), weight (O,I,kh,kw), no padding, float64."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    per_group = weight.shape[0] // groups
    parts = [
        np.einsum("chwij,ocij->ohw", part, weight[group * per_group : (group + 1) * per_group])
        for group, part in enumerate(np.split(windows, groups))
    ]
    out = np.concatenate(parts)
    return out if bias is None else out + bias[:, None, None]


def batch_norm(x: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> Array:
    """As a graph applies it: centre, divide by the deviation, scale, shift."""
    column = (slice(None), None, None)
    return (x - mean[column]) / np.sqrt(variance[column] + EPSILON) * gamma[column] + beta[column]


def draw(seed: int, groups: int, with_bias: bool) -> tuple[Array, Array | None, list[Array]]:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(8, 8 // groups, 3, 3)).astype(np.float32)
    bias = rng.normal(size=8).astype(np.float32) if with_bias else None
    gamma, beta, mean = (rng.normal(size=8).astype(np.float32) for _ in range(3))
    return weight, bias, [gamma, beta, mean, np.exp(rng.normal(0, 3, 8)).astype(np.float32)]


def largest_error(fold: object, seed: int, groups: int, with_bias: bool) -> float:
    """Difference of the two graphs, relative to the sum of magnitudes that float32 weights are rounded at."""
    weight, bias, statistics = draw(seed, groups, with_bias)
    x = np.random.default_rng(seed + 1).normal(size=(8, 6, 5))
    expected = batch_norm(
        convolution(x, weight.astype(np.float64), bias, groups), *(s.astype(float) for s in statistics)
    )
    folded, offset = fold(weight, bias, *statistics, EPSILON)  # type: ignore[operator]
    assert folded.dtype == offset.dtype == np.float32
    assert folded.shape == weight.shape
    got = convolution(x, folded.astype(np.float64), offset.astype(np.float64), groups)
    factor = np.abs(statistics[0] / np.sqrt(statistics[3] + EPSILON))[:, None, None]
    magnitude = convolution(np.abs(x), np.abs(weight).astype(float), None, groups) * factor
    offsets = np.abs(statistics[2]) + (0 if bias is None else np.abs(bias))
    magnitude += (np.abs(statistics[1]) + factor.ravel() * offsets)[:, None, None]
    return float((np.abs(got - expected) / magnitude).max())


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_folded_equals_unfolded(seed: int, groups: int, with_bias: bool) -> None:
    """Up to the one rounding of each folded number to float32, half a unit of 2^-23."""
    assert largest_error(fold_batch_norm, seed, groups, with_bias) < 2.0**-22


def test_a_fold_without_rounding_is_exact() -> None:
    weight = np.array([3.0, -5.0], np.float32).reshape(2, 1, 1, 1)
    gamma, variance = np.array([2.0, -8.0], np.float32), np.array([0.25, 16.0], np.float32)
    beta, mean = np.array([1.0, 2.0], np.float32), np.array([0.5, -1.0], np.float32)
    folded, offset = fold_batch_norm(weight, np.array([1.0, 3.0], np.float32), gamma, beta, mean, variance, 0.0)
    assert folded.ravel().tolist() == [12.0, 10.0]
    assert offset.tolist() == [3.0, -6.0]


def test_it_is_computed_in_float64() -> None:
    """Rounded once, at the end; the same formula in float32 rounds at every step and comes out elsewhere."""
    rng = np.random.default_rng(4)
    weight, gamma, variance = (rng.uniform(0.5, 2, 1000).astype(np.float32) for _ in range(3))
    zero = np.zeros(1000, np.float32)
    folded, _ = fold_batch_norm(weight[:, None], None, gamma, zero, zero, variance, EPSILON)
    exact = weight.astype(np.float64) * gamma / np.sqrt(variance.astype(np.float64) + EPSILON)
    assert (np.abs(folded[:, 0] - exact) <= np.spacing(folded[:, 0]) * 0.5000001).all()
    in_float32 = weight * gamma / np.sqrt(variance + np.float32(EPSILON))
    assert (folded[:, 0] != in_float32).any()


MUTANTS = {
    "epsilon forgotten": lambda w, b, g, bt, m, v, e: fold_batch_norm(w, b, g, bt, m, v, 0.0),
    "bias forgotten": lambda w, b, g, bt, m, v, e: fold_batch_norm(w, None, g, bt, m, v, e),
    "bias not scaled": lambda w, b, g, bt, m, v, e: (
        fold_batch_norm(w, None, g, bt, m, v, e)[0],
        fold_batch_norm(w, None, g, bt, m, v, e)[1] + b,
    ),
    "mean added": lambda w, b, g, bt, m, v, e: fold_batch_norm(w, b, g, bt, -m, v, e),
    "variance for deviation": lambda w, b, g, bt, m, v, e: fold_batch_norm(w, b, g, bt, m, v * v, e),
    "gamma on the inputs": lambda w, b, g, bt, m, v, e: (
        fold_batch_norm(w.swapaxes(0, 1), b, g, bt, m, v, e)[0].swapaxes(0, 1),
        fold_batch_norm(w, b, g, bt, m, v, e)[1],
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_mutants_are_noticed(mutant: object) -> None:
    assert largest_error(mutant, seed=3, groups=1, with_bias=True) > 2.0**-22


def test_impossible_statistics_are_refused() -> None:
    one = np.ones(2, np.float32)
    weight = np.ones((2, 1, 1, 1), np.float32)
    with pytest.raises(QuantError, match="gamma has shape"):
        fold_batch_norm(weight, None, one[:1], one, one, one, EPSILON)
    with pytest.raises(QuantError, match="positive"):
        fold_batch_norm(weight, None, one, one, one, -one, EPSILON)
    with pytest.raises(QuantError, match="positive"):
        fold_batch_norm(weight, None, one, one, one, one * np.float32("nan"), EPSILON)
