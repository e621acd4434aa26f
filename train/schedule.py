"""What a training step will do, in iterations: fixed at its start, so that a resumed run follows the same plan."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from configs.schema import PREFIXES, Config, TrainingStep

LEAST_WARMUP = 50  # iterations: Adam's second moments are those of a few gradients at first (arXiv 1908.03265)


@dataclass(frozen=True)
class Plan:
    """One step's plan. `settings` are the solver's entry; counts are those after `--pipeline-test`."""

    step: int
    settings: TrainingStep
    epochs: int
    iterations_per_epoch: int
    batch_size: int

    @property
    def prefix(self) -> str:
        """Of the step's file names."""
        return PREFIXES[self.step]

    @property
    def iterations(self) -> int:
        """Of the whole step."""
        return self.epochs * self.iterations_per_epoch

    @property
    def quantize_at(self) -> int:
        """The iteration before which fake quantization begins, 0 from the start; `iterations` in a float step.

        Never the last: a step that quantizes does so, however short a test makes it.
        """
        if self.settings.mode == "kFloatTraining":
            return self.iterations
        return min(int(self.settings.quant_delay * self.iterations), self.iterations - 1)

    @property
    def freeze_at(self) -> int:
        """The iteration before which shifts are frozen; `iterations` if only the end freezes them.

        Never before quantization has begun: what nothing was observed of would be frozen, too.
        """
        frozen = math.ceil(self.settings.freeze_fraction * self.iterations)
        begun = self.quantize_at if self.settings.quant_delay else 0
        return max(begun + 1, self.iterations - frozen)

    def learning_rate(self, iteration: int) -> float:
        """Linear warm-up, then a cosine to zero; a step of fewer than LEAST_WARMUP iterations is warm-up only."""
        warmup = max(self.settings.warmup_fraction * self.iterations, LEAST_WARMUP)
        if iteration < warmup:
            return self.settings.learning_rate * (iteration + 1) / (warmup + 1)
        progress = (iteration - warmup) / max(1.0, self.iterations - warmup)
        return self.settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def make_plan(config: Config, step: int, *, pipeline_test: bool, iterations_per_epoch: Callable[[int], int]) -> Plan:
    """The plan of `step`; the function gives the iterations of an epoch for a batch size, if the config does not."""
    settings = config.training_step(step)
    if pipeline_test:
        test = config.pipeline_test
        return Plan(step, settings, test.epochs, test.iterations_per_epoch, test.batch_size)
    per_epoch = settings.iterations_per_epoch or iterations_per_epoch(settings.batch_size)
    return Plan(step, settings, settings.epochs, per_epoch, settings.batch_size)
