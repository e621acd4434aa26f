"""The real network at steps 0 to 2 without training: random weights and batch norms, absorbed step by step."""

from pathlib import Path

import numpy as np
import torch

from configs.schema import Config
from tests.parity.numpy_interpreter import Array
from tests.parity.parts import freeze, randomize
from train.checkpoint import Checkpoint
from train.export import export_onnx, network_image
from train.steps import Prepared, prepare


def first_step(config: Config, seed: int, sample: Array, *, tail: float = 4.0) -> Prepared:
    """Step 0 with random weights; the statistics of its batch norms fit `sample`, a network input."""
    torch.manual_seed(seed)
    prepared = prepare(config, 0, start=None, before=None)
    randomize(prepared.network.network, np.random.default_rng(seed), sample, tail=tail)
    return prepared


def next_step(before: Prepared, sample: Array) -> Prepared:
    """The step after `before`, its batch norms absorbed, its observers having seen `sample`."""
    absorbed = sorted(before.absorbed)
    checkpoint = Checkpoint(before.network.state_dict(), {"absorbed": absorbed})
    prepared = prepare(before.config, before.step + 1, start=None, before=checkpoint)
    prepared.network.network.train()
    with torch.no_grad():
        prepared.network.network(torch.from_numpy(network_image(sample)))
    return prepared


def export(prepared: Prepared, folder: Path) -> Path:
    """Writes the step's ONNX under the name that a run gives it."""
    path = folder / f"{prepared.prefix}-export-last.onnx"
    export_onnx(prepared.export_model(), prepared.config.input_hw, prepared.config.output_names, path)
    return path


def saturating_step_2(config: Config, seed: int, sample: Array, folder: Path) -> Path:
    """Step 2 with many values that saturate: four in ten of the shifts are 1 to 3 finer than suits `sample`."""
    rng = np.random.default_rng(seed)
    prepared = next_step(next_step(first_step(config, seed, sample), sample), sample)
    freeze(prepared.network.network, rng, sample, too_fine=0.4)
    return export(prepared, folder)
