"""What a fake-quantized training step costs against a float one: same network, batch, threads, float32.

    python benchmarks/step_cost.py [--config C] [--rounds N] [--json F]

Forward pass with losses, backward pass and optimizer step on one batch of the config's training pictures; the ways to
train take turns. Ratios are of the medians to that of float.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from phases import REPOSITORY
from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs import Config, load
from quant.fake import use_exact_convolutions
from runtime.processor import processor_name
from train.data.dataset import Batch
from train.devices import make_fabric
from train.feed import Feed
from train.optimizer import ChannelwiseAdamW
from train.steps import prepare

WAYS = {
    "float": (0, "kFloatTraining"),
    "quantized, with batch norms": (0, "kTrainingWithBN"),
    "quantized, all absorbed": (2, "kTrainingWithoutBN"),
}
WARM_UP = 20  # steps of each, in which the observers look at every batch


def one_batch(config: Config) -> list[Batch]:
    """The first batch of training."""
    feed = Feed(config, 0, pipeline_test=False, seed=1, fabric=make_fabric("cpu", bfloat16=False))
    return next(iter(feed.batches(config.solver[0].batch_size)(0, 1)))


def stepper(config: Config, step: int, mode: str, batches: list[Batch]) -> Callable[[], None]:
    """A function that does one training step."""
    solver = list(config.solver)
    solver[step] = solver[step].model_copy(update={"mode": mode})
    torch.manual_seed(1)
    network = prepare(config.model_copy(update={"solver": tuple(solver)}), step, start=None, before=None).network
    network.train()
    optimizer = ChannelwiseAdamW(network, weight_decay=1e-4)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(network(batches).values())).sum().backward()
        optimizer.step()

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs/4pe_resize/embedded.py", metavar="C")
    parser.add_argument(
        "--rounds", type=int, default=12, metavar="N", help="steps of each that are timed (default: 12)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the result to this file, too")
    options = parser.parse_args(arguments)
    config = load(options.config)
    use_exact_convolutions()
    torch.set_num_threads(config.common.threads)
    batches = one_batch(config)
    steps = {name: stepper(config, *way, batches) for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in track(range(WARM_UP + options.rounds), description="steps", console=Console(stderr=True)):
        for name, run in steps.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    seconds = {name: statistics.median(values[WARM_UP:]) for name, values in times.items()}
    size = "x".join(map(str, config.common.crop_hw))
    pictures = sum(len(batch.pictures) for batch in batches)
    title = f"{pictures} pictures of {size}, float32, {config.common.threads} threads, {processor_name()}"
    table = Table("training", "seconds a step, median", "ratio to float", title=title)
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}", f"{value / seconds['float']:.2f}")
    Console(width=120).print(table)
    if options.json:
        options.json.write_text(json.dumps({"title": title, "seconds": seconds}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
