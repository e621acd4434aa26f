"""Folding a batch norm into the convolution before it: the one formula that training and the compiler share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.errors import QuantError

Floats = NDArray[np.floating[Any]]


def fold_batch_norm(
    weight: Floats,
    bias: Floats | None,
    gamma: Floats,
    beta: Floats,
    mean: Floats,
    variance: Floats,
    epsilon: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """BN(conv(x, w) + b) = conv(x, w') + b' with w' = w·γ/√(σ²+ε), b' = β + (b-μ)·γ/√(σ²+ε).

    weight (O, …), grouped or not, since only the output channel matters; the rest (O,); bias None is 0. Computed in
    float64 and rounded once to float32. QuantError if a shape or a variance is impossible.
    """
    channels = len(weight)
    for name, value in (("bias", bias), ("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance)):
        if value is not None and value.shape != (channels,):
            raise QuantError(f"batch norm {name} has shape {value.shape}, the convolution {channels} output channels")
    spread = np.asarray(variance, np.float64) + epsilon
    if not (spread > 0).all():
        raise QuantError("batch norm variance + epsilon must be positive; the running statistics are damaged")
    factor = np.asarray(gamma, np.float64) / np.sqrt(spread)
    offset = np.asarray(0.0 if bias is None else bias, np.float64) - np.asarray(mean, np.float64)
    folded = np.asarray(weight, np.float64) * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), (np.asarray(beta, np.float64) + offset * factor).astype(np.float32)
