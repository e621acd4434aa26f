"""Which shift suits a stream of activations: watched while training, on samples, with moving averages.

`ErrorObserver` takes the shift whose rounding and saturation cost the least squared error, which lets rare extremes
saturate: right inside the network. `PeakObserver` takes the finest shift at which nothing saturates: right for scores
and what they are made of, whose extremes are the detections. Processes that train together see what all of them see, so
their shifts agree.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant import processes
from quant.arith import INT8_MAX, INT8_MIN
from quant.params import ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN, choose_activation_shift
from quant.sampling import pixel_grid

MEMORY = 50  # looks; few values saturate, and those decide: fewer looks leave the choice to chance
FALL = 0.1
RISE = 0.5  # a saturated value has no gradient: growing outputs must not wait for their range
EAGER = 16  # the first calls are all observed,
PERIOD = 4  # then one in four


def sample_of(value: Tensor, count: int) -> Tensor:
    """Values of (N, C, H, W) on a grid of pixels, another one for every count; never copies the whole.

    Processes that train together look at as many, and at the same pixels as one with all their pictures.
    """
    rows, columns = pixel_grid(processes.count() * value.numel(), (value.shape[2], value.shape[3]), count)
    return value[:, :, rows, columns].float().reshape(-1)


def rounding_errors(values: Tensor, scales: Tensor) -> Tensor:
    """Mean squared error of values (n,) as int8 of each scale (k, 1), steps to the unit: (k,)."""
    rounded = (values * scales).round_().clamp_(INT8_MIN, INT8_MAX).div_(scales)
    return (rounded - values).square_().mean(dim=1)


class Observer(nn.Module):
    """Base: counts the calls and decides which of them to look at."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, values: Sequence[Tensor], *, relu: bool = False) -> int | None:
        """Takes in activations (N, C, H, W) that share a shift, as they are after `relu` if so asked.

        Returns the shift that suits, or None if it did not look.
        """
        count = int(self.count)
        self.count += 1
        if count >= EAGER and count % PERIOD:
            return None
        samples = [self._sample(value.detach(), count) for value in values]
        looks = min(count, EAGER) + max(0, count - EAGER) // PERIOD
        self._update([sample.relu() if relu else sample for sample in samples], looks)
        return self._best()

    def _sample(self, value: Tensor, count: int) -> Tensor:
        raise NotImplementedError

    def _update(self, samples: Sequence[Tensor], looks: int) -> None:
        """`looks`: how many there were before."""
        raise NotImplementedError

    def _best(self) -> int:
        raise NotImplementedError


class ErrorObserver(Observer):
    """Least mean squared error over all legal shifts: the mean over all looks, of many the last MEMORY or so."""

    errors: Tensor
    scales: Tensor

    def __init__(self) -> None:
        super().__init__()
        candidates = torch.arange(ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN - 1, -1, dtype=torch.float32)
        self.register_buffer("errors", torch.zeros(len(candidates)))
        self.register_buffer("scales", torch.exp2(candidates)[:, None], persistent=False)

    def _sample(self, value: Tensor, count: int) -> Tensor:
        return sample_of(value, count)

    def _update(self, samples: Sequence[Tensor], looks: int) -> None:
        errors = rounding_errors(torch.cat(list(samples)), self.scales)
        self.errors.lerp_(processes.mean(errors), 1 / min(looks + 1, MEMORY))

    def _best(self) -> int:
        return ACTIVATION_SHIFT_MAX - int(self.errors.argmin())  # the finest of equals


class PeakObserver(Observer):
    """The largest absolute value: follows a rise at once, half-way at a time, and a fall slowly."""

    peak: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("peak", torch.zeros(()))

    def _sample(self, value: Tensor, count: int) -> Tensor:
        return value

    def _update(self, samples: Sequence[Tensor], looks: int) -> None:
        peak = processes.greatest(torch.stack([sample.abs().amax() for sample in samples]).amax().float())
        self.peak.lerp_(peak, 1.0 if looks == 0 else RISE if peak > self.peak else FALL)

    def _best(self) -> int:
        return choose_activation_shift(float(self.peak))
