"""Which shift suits a stream of activations: watched while training, on samples, with moving averages.

`ErrorObserver` takes the shift whose rounding and saturation cost the least squared error, which lets rare extremes saturate: right
inside the network. `PeakObserver` takes the finest shift at which nothing saturates: right for scores, whose extremes are the
detections.
"""

import torch
from torch import Tensor, nn

from quant.params import choose_activation_shift

SMALLEST_SHIFT, LARGEST_SHIFT = -4, 12
SAMPLE = 4096
MOMENTUM = 0.1
EAGER = 16
PERIOD = 4


class Observer(nn.Module):
    """Base: counts the calls, samples every fourth after the first sixteen. `shift()` is None until something was seen."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, value: Tensor, *, relu: bool = False) -> bool:
        """Takes in one activation (N, C, H, W), after `relu` if so asked. True if it was sampled."""
        count = int(self.count)
        self.count += 1
        if count >= EAGER and count % PERIOD:
            return False
        sampled = self._sample(value.detach(), count)
        sampled = sampled.relu() if relu else sampled
        self._update(sampled, 1.0 if count == 0 else MOMENTUM)
        return True

    def shift(self) -> int | None:
        """The shift that suits what was seen."""
        return self._best() if int(self.count) else None

    def _sample(self, value: Tensor, count: int) -> Tensor:
        raise NotImplementedError

    def _update(self, sample: Tensor, momentum: float) -> None:
        raise NotImplementedError

    def _best(self) -> int:
        raise NotImplementedError


class ErrorObserver(Observer):
    """Least mean squared error over the candidate shifts."""

    errors: Tensor
    scales: Tensor

    def __init__(self) -> None:
        super().__init__()
        candidates = torch.arange(LARGEST_SHIFT, SMALLEST_SHIFT - 1, -1, dtype=torch.float32)
        self.register_buffer("errors", torch.zeros(len(candidates)))
        self.register_buffer("scales", torch.exp2(candidates)[:, None], persistent=False)

    def _sample(self, value: Tensor, count: int) -> Tensor:
        # a grid of pixels, another one every time: no copy of the whole tensor, whatever its memory format
        step = max(1, int((value.numel() / SAMPLE) ** 0.5))
        height, width = value.shape[2:]
        row, column = (count * 7) % min(step, height), (count * 5) % min(step, width)
        return value[:, :, row::step, column::step].float().reshape(-1)

    def _update(self, sample: Tensor, momentum: float) -> None:
        rounded = (sample * self.scales).round_().clamp_(-128, 127).div_(self.scales)
        self.errors.lerp_((rounded - sample).square_().mean(dim=1), momentum)

    def _best(self) -> int:
        return LARGEST_SHIFT - int(self.errors.argmin())  # the finest of equals


class PeakObserver(Observer):
    """The largest absolute value."""

    peak: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("peak", torch.zeros(()))

    def _sample(self, value: Tensor, count: int) -> Tensor:
        return value

    def _update(self, sample: Tensor, momentum: float) -> None:
        self.peak.lerp_(sample.abs().amax().float(), momentum)

    def _best(self) -> int:
        return int(choose_activation_shift(float(self.peak)))
