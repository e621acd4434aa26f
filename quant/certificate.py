"""The exactness certificate: per layer, a bound on every sum that is ever formed, and the check that it is safe.

B[c] = Σ|w[c]| · max|x| + |b[c]|, aligned, plus the aligned residual. B < 2^24 makes every float32 engine exact on step
2's graph, whatever its order of summation; the aligned value plus the rounding addend under 2^31 keeps step 3 in int32.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quant.arith import ACCUMULATOR_LIMIT, INT8_MIN, MAX_RIGHT_SHIFT, Int64
from quant.errors import QuantError

INT32_LIMIT = 1 << 31


class CertificateError(QuantError):
    """A layer whose sums are not proven exact."""


@dataclass(frozen=True)
class LayerBound:
    """The bounds of one layer: largest over its channels, and the channel where that is."""

    name: str
    kind: str  # conv, add, concat or pool
    float_bound: int  # B in units of the finest grid that meets in the sum; must stay under 2^24
    aligned_bound: int  # largest int32 of step 3, rounding addend included; must stay under 2^31
    worst_channel: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary, keys as the fields."""
        return asdict(self)


def channel_bounds(
    weight: NDArray[np.integer[Any]],
    weight_shift: ArrayLike,
    bias: ArrayLike,
    *,
    input_shift: int,
    input_max: int,
    residual_shift: int | None = None,
    residual_max: int = -INT8_MIN,
) -> Int64:
    """B per output channel, int64 (O,): weight (O, …) and bias (O,) as integers, weight_shift (O,)."""
    channels = weight.shape[0]
    total = np.abs(weight.astype(np.int64)).reshape(channels, -1).sum(axis=1) * input_max
    total = total + np.abs(np.asarray(bias, np.int64))
    if residual_shift is None:
        return total
    grid = np.asarray(weight_shift, np.int64) + input_shift
    finest = np.maximum(grid, residual_shift)
    return (total << (finest - grid)) + (np.int64(residual_max) << (finest - residual_shift))


def conv_bound(
    weight: NDArray[np.int8],
    weight_shift: ArrayLike,
    bias: ArrayLike,
    *,
    input_shift: int,
    input_max: int,
    residual_shift: int | None = None,
    residual_max: int | None = None,
    out_shift: int | None = None,
    name: str = "",
) -> LayerBound:
    """Bound of a convolution. weight int8 (O, …), weight_shift (O,), bias int32 (O,).

    input_max: 127 behind a ReLU, else 128. Without `out_shift` the rounding addend is taken at its largest legal value.
    """
    totals = channel_bounds(
        weight,
        weight_shift,
        bias,
        input_shift=input_shift,
        input_max=input_max,
        residual_shift=residual_shift,
        residual_max=-INT8_MIN if residual_max is None else residual_max,
    )
    grid = np.broadcast_to(np.asarray(weight_shift, np.int64) + input_shift, totals.shape)
    if residual_shift is not None:
        grid = np.maximum(grid, residual_shift)
    aligned = totals + np.array([_rounding_addend(int(shift), out_shift) for shift in grid])
    worst = int(totals.argmax())
    return LayerBound(name, "conv", int(totals[worst]), int(aligned.max()), worst)


def add_bound(
    a_shift: int, b_shift: int, *, a_max: int = 128, b_max: int = 128, out_shift: int | None = None, name: str = ""
) -> LayerBound:
    """Bound of a + b on the finer of the two grids."""
    grid = max(a_shift, b_shift)
    total = (a_max << (grid - a_shift)) + (b_max << (grid - b_shift))
    return LayerBound(name, "add", total, total + _rounding_addend(grid, out_shift), 0)


def concat_bound(
    shifts: Sequence[int], *, maximum: int = 128, out_shift: int | None = None, name: str = ""
) -> LayerBound:
    """Bound of a concat: nothing is summed, each input is only requantized from its own shift."""
    aligned = maximum + max(_rounding_addend(shift, out_shift) for shift in shifts)
    return LayerBound(name, "concat", maximum, aligned, 0)


def pool_bound(kernel: int, x_shift: int, out_shift: int, *, input_max: int = 128, name: str = "") -> LayerBound:
    """Bound of an average pool over kernel x kernel values; the sum is shifted left where `out_shift` is finer."""
    total = kernel * kernel * input_max
    denominator = kernel * kernel << max(x_shift - out_shift, 0)
    return LayerBound(name, "pool", total, (total << max(out_shift - x_shift, 0)) + denominator // 2, 0)


def check(bounds: Iterable[LayerBound]) -> None:
    """Raises CertificateError that names every layer over a bound, and the cure."""
    problems = []
    for bound in bounds:
        if bound.float_bound >= ACCUMULATOR_LIMIT:
            problems.append(
                f"layer {bound.name} ({bound.kind}), channel {bound.worst_channel}: sums reach {bound.float_bound}, "
                f"the limit is 2^24 = {ACCUMULATOR_LIMIT}"
            )
        elif bound.aligned_bound >= INT32_LIMIT:
            problems.append(
                f"layer {bound.name} ({bound.kind}): aligned values reach {bound.aligned_bound}, over int32"
            )
    if problems:
        raise CertificateError(
            "; ".join(problems) + ". Lower that layer's weight shifts or activation shifts, or clamp its bias "
            "(training and calibration do so by themselves: quant.params.choose_weight_shift)"
        )


def _rounding_addend(shift: int, out_shift: int | None) -> int:
    """2^(n-1), what rounding adds to the accumulator before the right shift by n."""
    n = MAX_RIGHT_SHIFT if out_shift is None else shift - out_shift
    return 1 << (n - 1) if n > 0 else 0
