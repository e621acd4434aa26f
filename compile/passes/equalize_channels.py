"""EqualizeChannels: channels of a tensor between two convolutions get ranges that suit one scale.

    Before   y = conv2d(relu(conv2d(x, v) + b), w)
    After    y = conv2d(relu(conv2d(x, v / f) + b / f), w * f)        f: a power of two for each channel between them

A tensor has one scale, so a channel that is always small has few of its 127 steps. A factor moves size from the
activation to the weights that read it: f = sqrt(r / s) makes both equal, r being the channel's largest activation and s
the largest weight that reads it (cross-layer equalization, Nagel et al., arXiv 1906.04721, with measured activations in
place of the first weights, which have a scale for each channel). Rounded to a power of two it changes no bit of the
float graph.

Requires: no batch norms, no scales. Ensures: nothing but weights and biases change. A tensor that is read elsewhere,
too, or returned, stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from compile.files import Parameters
from compile.graph import Graph

LARGEST = 8  # of |log2 f|: an extreme channel must not push weights out of the range of shifts


@dataclass(frozen=True)
class Link:
    """A tensor between two convolutions: the one's weight and bias (or None), the other's weight and groups."""

    tensor: relax.Var
    weight: str
    bias: str | None
    next_weight: str
    groups: int


@tvm.transform.module_pass(opt_level=0, name="EqualizeChannels")
class EqualizeChannels:
    """See the module's text. `peaks`: largest absolute value by channel for every tensor of `links`, by its name.

    `parameters` are changed in place; `factors` tells by how much, by the tensor's name.
    """

    def __init__(self, parameters: Parameters, peaks: Mapping[str, NDArray[np.float32]]) -> None:
        self.parameters = parameters
        self.peaks = peaks
        self.factors: dict[str, NDArray[np.float32]] = {}

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        for link in links(module):
            factor = factors_of(self.peaks[str(link.tensor.name)], self.parameters[link.next_weight], link.groups)
            self.parameters[link.weight] = self.parameters[link.weight] / factor.reshape(-1, 1, 1, 1)
            if link.bias is not None:
                self.parameters[link.bias] = self.parameters[link.bias] / factor
            by_group = factor.reshape(link.groups, 1, -1, 1, 1)
            weight = self.parameters[link.next_weight]
            spread = weight.reshape(link.groups, -1, *weight.shape[1:]) * by_group
            self.parameters[link.next_weight] = spread.reshape(weight.shape)
            self.factors[str(link.tensor.name)] = factor
        return module


def links(module: tvm.IRModule) -> list[Link]:
    """Every tensor that only one convolution makes and only one reads, in the graph's order; weights of no other."""
    graph = Graph(module)
    found = []
    for var, value in graph.value_of.items():
        if graph.operator(var) != "relax.nn.conv2d":
            continue
        tensor = value.args[0]
        source = graph.value_of[tensor].args[0] if graph.operator(tensor) == "relax.nn.relu" else tensor
        if not graph.is_bare_convolution(source) or graph.only_reader(tensor) != var:
            continue
        bias = graph.bias_of(source)
        convolution = graph.value_of[source].args[0] if bias is not None else source
        inner = {convolution, source} - {tensor}
        weights = graph.value_of[convolution].args[1], value.args[1]
        if any(graph.only_reader(entry) is None for entry in (*inner, *weights)):
            continue
        if any(weight in graph.value_of for weight in weights):  # quantized already
            continue
        if bias is not None and not graph.is_read_once(bias):
            continue
        names = [str(entry.name) for entry in weights]
        found.append(
            Link(tensor, names[0], None if bias is None else str(bias.name), names[1], int(value.attrs.groups))
        )
    return found


def factors_of(peaks: NDArray[np.float32], weight: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """f by channel: powers of two. `weight` (O, I / groups, kh, kw) reads the channels; one that is 0 keeps f = 1."""
    largest = np.abs(weight).reshape(groups, -1, weight.shape[1], weight.shape[2] * weight.shape[3]).max(axis=(1, 3))
    largest = largest.reshape(-1)
    used = (peaks > 0) & (largest > 0)
    ratio = np.divide(peaks, largest, out=np.ones(len(peaks), np.float64), where=used)
    exponent = np.where(used, np.rint(np.log2(ratio) / 2), 0)
    middle = np.rint(np.median(exponent[used])) if used.any() else 0.0  # what all have in common changes nothing
    return np.exp2(np.where(used, np.clip(exponent - middle, -LARGEST, LARGEST), 0)).astype(np.float32)
