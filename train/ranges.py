"""Fits the ranges of a float network's activations to powers of two, before quantization training begins.

The scale that suits a tensor best is seldom a power of two, and the nearest one costs some of the ratio of signal to
noise. But f · relu(x) = relu(f · x) for f > 0: what makes a tensor may make it f times as large if all that reads it
takes f back. The network computes what it did, and f moves the best scale onto a power of two. Tensors that are added
to each other have one f in common. The outputs of heads stay as they are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quant import processes
from quant.fake import ActivationQuantizer, ElementwiseAdd, QuantConv2d, QuantTensor
from quant.observer import rounding_errors, sample_of
from quant.params import ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN

PARTS = 8  # candidates for a scale in every octave
OCTAVES = ACTIVATION_SHIFT_MAX - ACTIVATION_SHIFT_MIN + 1
UNCHANGED = 0.01  # of the largest value: rounding errors are below, a factor that nobody takes back is above

Outputs = dict[str, Tensor]


@dataclass
class _Group:
    """Tensors with one factor, by their quantizers; the convolutions that make them and those that read them."""

    quantizers: set[ActivationQuantizer] = field(default_factory=set)
    makers: set[QuantConv2d] = field(default_factory=set)
    readers: set[QuantConv2d] = field(default_factory=set)


@torch.no_grad()
def fit_ranges(network: nn.Module, run: Callable[[Any], Outputs], batches: Iterable[Any]) -> str:
    """Fits `network`, in float and in evaluation mode, to what it computes when `run` gives it the batches.

    `run` returns the network's outputs. Where they would not stay the same, because some part does more with an
    activation than convolving and adding, everything is left as it was. Returns a line for the user.
    """
    pictures = iter(batches)
    first = next(pictures)
    with _grouping(network) as groups, _measuring(network) as errors:
        before = run(first)
        for batch in pictures:
            run(batch)
    found = list({id(group): group for group in groups.values()}.values())
    factors = [_best_factor([errors[quantizer] for quantizer in group.quantizers]) for group in found]
    saved = {name: value.clone() for name, value in network.state_dict().items()}
    for group, factor in zip(found, factors, strict=True):
        for unit in group.makers:
            unit.rescale(output=factor)
        for unit in group.readers:
            unit.rescale(source=factor)
    after = run(first)
    moved = torch.stack([(after[name] - value).abs().max() / value.abs().max() for name, value in before.items()])
    if processes.greatest(moved.max()) > UNCHANGED:  # all processes do the same
        network.load_state_dict(saved)
        return "ranges left as they are: some part of the network is neither convolution, sum nor upsampling"
    count = sum(factor != 1.0 for factor in factors)
    return f"ranges fitted to powers of two, {count} of {len(found)} of them by a factor"


@contextmanager
def _grouping(network: nn.Module) -> Iterator[dict[ActivationQuantizer, _Group]]:
    """Within it a forward pass fills the dictionary: the group of every tensor that units of the network make."""
    groups: dict[ActivationQuantizer, _Group] = {}

    def unite(tensors: Iterable[QuantTensor]) -> _Group:
        """The group of tensors that are added to each other."""
        united = _Group()
        for x in tensors:
            assert x.quantizer is not None
            group = groups.get(x.quantizer, _Group({x.quantizer}))
            united.quantizers |= group.quantizers
            united.makers |= group.makers
            united.readers |= group.readers
        groups.update(dict.fromkeys(united.quantizers, united))
        return united

    def after_convolution(unit: nn.Module, inputs: tuple[Any, ...], output: QuantTensor) -> None:
        assert isinstance(unit, QuantConv2d)
        x, *residual = (entry for entry in inputs if entry is not None)
        if x.quantizer is not None:  # the picture has none
            groups.setdefault(x.quantizer, _Group({x.quantizer})).readers.add(unit)
        if unit.quantizer is not None:
            unite([output, *residual]).makers.add(unit)

    def after_sum(unit: nn.Module, inputs: tuple[Any, ...], output: QuantTensor) -> None:
        unite([output, *inputs])

    with _hooks(network, QuantConv2d, after_convolution), _hooks(network, ElementwiseAdd, after_sum):
        yield groups


@contextmanager
def _measuring(network: nn.Module) -> Iterator[dict[ActivationQuantizer, Tensor]]:
    """Within it forward passes fill the dictionary: for every tensor the squared error of each candidate for its scale,
    2^-(least shift + k / PARTS), relative to the tensor's own square, added up over the passes.
    """
    errors: dict[ActivationQuantizer, Tensor] = {}
    passes: Counter[ActivationQuantizer] = Counter()
    scales = torch.exp2(torch.arange(PARTS * OCTAVES, dtype=torch.float64) / PARTS + ACTIVATION_SHIFT_MIN).float()

    def after(unit: nn.Module, inputs: tuple[Any, ...], output: QuantTensor) -> None:
        assert isinstance(unit, ActivationQuantizer)
        values = sample_of(output.value, passes[unit])
        power = processes.mean(values.square().mean()).clamp_min(torch.finfo(torch.float32).tiny)
        found = processes.mean(rounding_errors(values, scales[:, None].to(values.device)))
        errors[unit] = errors.get(unit, torch.zeros(())) + found / power
        passes[unit] += 1

    with _hooks(network, ActivationQuantizer, after):
        yield errors


@contextmanager
def _hooks(network: nn.Module, kind: type[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    """The hook after the forward pass of all modules of a kind."""
    handles = [module.register_forward_hook(hook) for module in network.modules() if isinstance(module, kind)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _best_factor(errors: list[Tensor]) -> float:
    """From the errors of tensors that have one factor: that for which their sum is least, each at its best shift."""
    by_octave = torch.stack(errors).view(len(errors), OCTAVES, PARTS)
    best = int(by_octave.amin(dim=1).sum(dim=0).argmin())
    return float(2.0 ** ((best - PARTS if best > PARTS // 2 else best) / PARTS))
