"""The steps 0 to 2 as states of one network: which batch norms are absorbed, in which mode it runs, where it starts.

step 0  with-bn        kFloatTraining or kTrainingWithBN      no batch norm absorbed
step 1  fusion-bn-c1   kTrainingWithoutBN                     the shared ones absorbed, those of the heads left
step 2  fusion-bn-c2   kTrainingWithoutBN                     all absorbed
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from configs.fusion import absorbing_steps
from configs.schema import PREFIXES, Config
from quant.fake import ActivationQuantizer, QuantConv2d, Quantized
from quant.observer import ErrorObserver
from train.checkpoint import Checkpoint
from train.data.dataset import Batch, BoxTargets, MaskTargets
from train.errors import CheckpointError
from train.losses import build_losses
from train.models.multitask import MultiTaskNetwork
from train.ranges import fit_ranges

SMALL_HW = (128, 128)  # one cell at the coarsest stride there is


@dataclass(frozen=True)
class Prepared:
    """The network as `step` trains it. `absorbed` names the batch norms that are no more."""

    config: Config
    step: int
    mode: str
    network: "Training"
    absorbed: list[str]

    @property
    def prefix(self) -> str:
        """Of the step's file names."""
        return PREFIXES[self.step]

    @property
    def summary(self) -> str:
        """For the user: what became of the batch norms."""
        left = len(batch_norms(self.network.network))
        return f"{len(self.absorbed)} batch norms absorbed, {left} left"

    def export_model(self) -> nn.Module:
        """The network as it is exported: image to a tuple of heads in the config's order. Float as it is, else with
        frozen shifts and snapped weights. The training network itself is changed: use it for nothing else afterwards.
        """
        network = self.network.network
        network.eval()
        if self.network.quantized:
            snap(network)
        return Export(network, self.config.output_names)

    def output_shifts(self) -> dict[str, int] | None:
        """Shift of every exported output; None in float."""
        if not self.network.quantized:
            return None
        return self.network.network.output_shifts()


class Training(nn.Module):
    """Network and losses, as the loop trains them. Its state is the network's."""

    def __init__(self, network: MultiTaskNetwork, config: Config) -> None:
        super().__init__()
        self.network = network
        self.losses = build_losses(config)

    def forward(self, batches: list[Batch]) -> dict[str, Tensor]:
        """Loss per task. The pictures of all batches, one for every group of sources, go through the shared part
        together, then those that are labelled for a task through its head.
        """
        image = self._image(batches)
        starts = list(itertools.accumulate((len(batch.pictures) for batch in batches), initial=0))
        labelled: dict[str, list[int]] = {name: [] for name in self.losses}
        for batch, start in zip(batches, starts, strict=False):
            for name in batch.tasks:
                labelled[name] += range(start, start + len(batch.pictures))
        with self._precision(image.device.type):
            outputs = self.network(image, labelled)
        return {name: loss(outputs, targets_of(name, batches)) for name, loss in self.losses.items()}

    def freeze(self) -> None:
        """Fixes shifts and batch statistics; from then on the forward pass computes the graph that is exported."""
        for module in quantized(self.network):
            module.frozen.fill_(True)

    @property
    def quantized(self) -> bool:
        """Whether it computes fake-quantized."""
        return any(module.quantized for module in quantized(self.network))

    def quantize(self) -> None:
        """From now on it computes fake-quantized."""
        for module in quantized(self.network):
            module.quantized = True

    def fit_ranges(self, batches: Iterator[list[Batch]]) -> str:
        """Makes a network in float ready to be quantized: see `train.ranges`. Returns a line for the user."""
        self.network.eval()
        line = fit_ranges(self.network, lambda some: self.network(self._image(some), None), batches)
        self.network.train()
        return line

    def _precision(self, device: str) -> AbstractContextManager[Any]:
        """Mixed precision is for float: sums of quantized values are exact in float32 only."""
        return torch.autocast(device, enabled=False) if self.quantized else nullcontext()

    def _image(self, batches: list[Batch]) -> Tensor:
        """The pictures of all batches, (N, 3, H, W)."""
        return torch.cat([batch.images() for batch in batches]).contiguous(memory_format=torch.channels_last)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The network's: a checkpoint holds the dotted names that the export has."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Inverse of `state_dict`."""
        return self.network.load_state_dict(state_dict, *args, **kwargs)


def targets_of(task: str, batches: Sequence[Batch]) -> list[BoxTargets] | MaskTargets:
    """The labels of a task in the batches that have some, in their order."""
    boxes = [target for batch in batches for target in batch.boxes.get(task, ())]
    masks = [batch.masks[task] for batch in batches if task in batch.masks]
    if not masks:
        return boxes
    either = {value: classes for entry in masks for value, classes in entry.either.items()}
    return MaskTargets(torch.cat([entry.labels for entry in masks]), either)


class Export(nn.Module):
    """The network with its heads as a tuple in the order of `output_names`."""

    def __init__(self, network: MultiTaskNetwork, output_names: tuple[str, ...]) -> None:
        super().__init__()
        # registered under the network's own names, so that these are the names in the ONNX file
        for name, module in network.named_children():
            self.add_module(name, module)
        self._run = network.forward
        self._output_names = output_names

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) to the heads."""
        outputs = self._run(image)
        return tuple(outputs[name] for name in self._output_names)


def prepare(config: Config, step: int, *, start: Checkpoint | None, before: Checkpoint | None) -> Prepared:
    """The network of `step`: as `start`, a checkpoint of this very step, left it, or new from `before`, the last
    checkpoint of the previous step (None for step 0). Fake-quantized as `start` was; a new one by its mode, and in
    float if that begins with a `quant_delay`.

    ConfigError if `fusion_bn_patterns` does not fit, CheckpointError if a checkpoint does not fit the config.
    """
    network = MultiTaskNetwork(config)
    settings = config.training_step(step)
    quantizes = settings.mode != "kFloatTraining"
    if config.env.shifts == "learned":
        learn_thresholds(network, training=quantizes)
    names = list(batch_norms(network))
    absorbed_in = absorbing_steps(config.fusion_bn_patterns, names, file=config.file)
    source = start or before
    if source is not None:
        absorb(network, source.progress["absorbed"])  # for the structure; the values come with the state
        load_state(network, source)
    if start is None:
        unfreeze(network)
        absorb(network, [name for name in batch_norms(network) if absorbed_in[name] <= step])
    begun = not settings.begins_in_float if start is None else start.progress.get("quantized", quantizes)
    for module in quantized(network):
        module.quantized = begun
    left = batch_norms(network)
    network.to(memory_format=torch.channels_last)
    return Prepared(
        config, step, settings.mode, Training(network, config), [name for name in names if name not in left]
    )


def batch_norms(network: nn.Module) -> dict[str, QuantConv2d]:
    """The units that still have a batch norm, by its dotted name."""
    units = ((name, module) for name, module in network.named_modules() if isinstance(module, QuantConv2d))
    return {f"{name}.bn": module for name, module in units if module.bn is not None}


def absorb(network: nn.Module, names: list[str]) -> None:
    """Folds the batch norms of these names into their convolutions."""
    units = batch_norms(network)
    for name in names:
        if name not in units:
            raise CheckpointError(
                f"the checkpoint has absorbed a batch norm {name!r} that the config does not describe"
            )
        units[name].absorb_batch_norm()


def load_state(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Loads the tensors; CheckpointError naming the first that does not fit."""
    expected = network.state_dict()
    for name in sorted(expected.keys() ^ checkpoint.model.keys()):
        where = "the config's network" if name in expected else "the checkpoint"
        raise CheckpointError(f"only {where} has a parameter {name!r}: give the config that the run was trained with")
    for name, tensor in checkpoint.model.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{name} is {tuple(tensor.shape)} in the checkpoint and {tuple(expected[name].shape)} in the config's "
                "network: give the config that the run was trained with"
            )
    network.load_state_dict(checkpoint.model)


def learn_thresholds(network: nn.Module, *, training: bool) -> None:
    """Thresholds as parameters for all activations inside the network; in float training they rest.

    The heads' outputs keep their observers: a score that saturates is a detection that cannot be ranked.
    """
    for module in network.modules():
        if isinstance(module, ActivationQuantizer) and isinstance(module.observer, ErrorObserver):
            module.learn_threshold()
            assert module.log2_threshold is not None
            module.log2_threshold.requires_grad_(training)


def quantized(network: nn.Module) -> list[Quantized]:
    """All parts that can be frozen."""
    return [module for module in network.modules() if isinstance(module, Quantized)]


def unfreeze(network: nn.Module) -> None:
    """Lets shifts and batch statistics move again, from where they are."""
    for module in quantized(network):
        module.frozen.fill_(False)


def forget_ranges(network: nn.Module) -> None:
    """Observers start anew, as is right where other pictures come."""
    for module in network.modules():
        if isinstance(module, ActivationQuantizer):
            module.observer.count.zero_()


@torch.no_grad()
def snap(network: nn.Module) -> None:
    """Puts all weights and biases on their grids, by one forward pass in which each layer sees its input's shift.

    CertificateError naming a layer that cannot keep the bound.
    """
    for module in quantized(network):
        module.frozen.fill_(True)
    units = [module for module in network.modules() if isinstance(module, QuantConv2d)]
    hooks = [unit.register_forward_pre_hook(_snap_unit) for unit in units]
    network(torch.zeros(1, 3, *SMALL_HW))
    for hook in hooks:
        hook.remove()
    for module in quantized(network):
        module.snapped = True


def _snap_unit(unit: nn.Module, inputs: tuple[Any, ...]) -> None:
    assert isinstance(unit, QuantConv2d)
    unit.snap(*inputs)
