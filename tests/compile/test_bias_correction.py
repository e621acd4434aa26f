"""What rounded weights add to the mean of an output is taken off its bias."""

import numpy as np
import pytest

from compile.passes.place_weight_scales import corrected
from quant.params import quantize_weight


@pytest.mark.parametrize("groups", [1, 2])
def test_the_mean_of_every_output_channel_is_that_of_float(groups: int) -> None:
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((6, 8 // groups, 3, 3)).astype(np.float32)
    bias, shift = rng.standard_normal(6).astype(np.float32), np.full(6, 3)
    x = rng.standard_normal((4, 8, 9, 9)) + rng.uniform(-2, 2, (1, 8, 1, 1))
    mean = x.mean(axis=(0, 2, 3))
    rounded = np.ldexp(quantize_weight(weight, shift).astype(np.float64), -3)
    exact = means(weight.astype(np.float64), mean, groups) + bias
    before = means(rounded, mean, groups) + bias
    after = means(rounded, mean, groups) + corrected(bias, weight, shift, mean, groups)
    assert np.abs(before - exact).max() > 0.05
    assert np.abs(after - exact).max() < 1e-6


def means(weight: np.ndarray, mean: np.ndarray, groups: int) -> np.ndarray:
    """Mean outputs of a convolution without padding, whose input has the same mean everywhere."""
    per_group = weight.sum(axis=(2, 3)).reshape(groups, -1, weight.shape[1])
    return np.concatenate([part @ of for part, of in zip(per_group, mean.reshape(groups, -1), strict=True)])
