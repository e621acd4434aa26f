"""The integer module in numpy: each layer by its function of `quant.arith`, and what every rounding was given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any
from unittest import mock

import numpy as np
import tvm

from compile.certify import LayerCall, layer_calls
from compile.files import Parameters
from compile.layers import (
    AddLayer,
    AveragePool,
    ChannelArgmax,
    ConcatLayer,
    ConvLayer,
    FlattenMaps,
    QuantizePixels,
    Upsample2x,
)
from quant import arith

Array = np.ndarray
Values = dict[str, Array]


def interpret(module: tvm.IRModule, parameters: Parameters, picture: Array) -> Values:
    """Every layer's output by the layer's name, for a picture uint8 (1, H, W, C)."""
    return {call.name: apply(call, arguments) for call, arguments in walk(module, parameters, picture)}


def walk(module: tvm.IRModule, parameters: Parameters, picture: Array) -> Iterator[tuple[LayerCall, list[Array]]]:
    """The layers in the order of execution, each with its inputs; a layer computed before is not computed again."""
    values: dict[Any, Array] = {module["main"].params[0]: picture}
    for call in layer_calls(module):
        arguments = [values[entry] if entry in values else parameters[entry.name] for entry in call.arguments]
        yield call, arguments
        values[call.var] = apply(call, arguments)


def apply(call: LayerCall, arguments: list[Array]) -> Array:
    return _FUNCTIONS[type(call.layer)](call.layer, *arguments)


def _quantize_pixels(layer: QuantizePixels, picture: Array) -> Array:
    return arith.quantize_pixels(picture)


def _conv(layer: ConvLayer, x: Array, weight: Array, bias: Array, weight_shift: Array, *residual: Array) -> Array:
    return arith.conv_layer(
        x,
        layer.in_shift,
        weight,
        weight_shift,
        bias,
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        relu=layer.relu,
        out_shift=layer.out_shift,
        residual=residual[0] if residual else None,
        residual_shift=layer.residual_shift,
    )


def _add(layer: AddLayer, a: Array, b: Array) -> Array:
    return arith.add_layer(a, layer.a_shift, b, layer.b_shift, relu=layer.relu, out_shift=layer.out_shift)


def _upsample(layer: Upsample2x, x: Array) -> Array:
    return arith.upsample2x(x, (layer.height, layer.width))


def _concat(layer: ConcatLayer, *inputs: Array) -> Array:
    return arith.concat(list(zip(inputs, layer.in_shifts, strict=True)), layer.out_shift)


def _pool(layer: AveragePool, x: Array) -> Array:
    return arith.average_pool(x, layer.kernel, layer.stride, layer.in_shift, layer.out_shift)


def _argmax(layer: ChannelArgmax, logits: Array) -> Array:
    return arith.channel_argmax(logits)


def _flatten(layer: FlattenMaps, *maps: Array) -> Array:
    return np.concatenate([entry.reshape(-1, layer.fields) for entry in maps])


_FUNCTIONS: Mapping[type, Callable[..., Array]] = {
    QuantizePixels: _quantize_pixels,
    ConvLayer: _conv,
    AddLayer: _add,
    Upsample2x: _upsample,
    ConcatLayer: _concat,
    AveragePool: _pool,
    ChannelArgmax: _argmax,
    FlattenMaps: _flatten,
}


@dataclass(frozen=True)
class Strength:
    """How hard a layer's inputs try its rounding: counts over the elements of its output.

    `below`, `above`: what rounds to less than -128 or more than 127. Ties: quotients half-way between two integers of
    that range, by the lower one of them: half to even leaves the even ones where they are and takes the odd ones up.
    """

    elements: int
    below: int
    above: int
    even_ties: int
    odd_ties: int
    negative_ties: int

    @property
    def saturated(self) -> float:
        """Share of the elements."""
        return (self.below + self.above) / self.elements

    def __add__(self, other: "Strength") -> "Strength":
        return Strength(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))


def strength_of(accumulator: Array, distance: Array) -> Strength:
    """Of one requantization: int64 accumulators and the right shift of each (negative: left)."""
    quotient = np.ldexp(accumulator.astype(np.float64), -distance)  # exact: accumulators stay under 2^53
    rounded, floor = np.rint(quotient), np.floor(quotient)
    tie = (quotient - floor == 0.5) & (floor >= -128) & (floor < 127)
    odd = floor % 2 == 1
    counts = (rounded < -128, rounded > 127, tie & ~odd, tie & odd, tie & (floor < 0))
    return Strength(accumulator.size, *(int(np.count_nonzero(entry)) for entry in counts))


def strengths(module: tvm.IRModule, parameters: Parameters, picture: Array) -> dict[str, Strength]:
    """By layer, for the layers that round; one picture."""
    found = {}
    for call, arguments in walk(module, parameters, picture):
        if isinstance(call.layer, AveragePool):
            found[call.name] = _pool_strength(call.layer, arguments[0])
            continue
        with _watched_rounding() as seen:
            apply(call, arguments)
        if seen:
            found[call.name] = sum(seen[1:], seen[0])
    return found


@contextmanager
def _watched_rounding() -> Iterator[list[Strength]]:
    """The strength of every call of `arith.requantize` within it."""
    seen: list[Strength] = []
    real = arith.requantize

    def watch(accumulator: Array, shift: Any, out_shift: int) -> Array:
        values = np.asarray(accumulator, np.int64)
        seen.append(strength_of(values, np.broadcast_to(np.asarray(shift, np.int64) - out_shift, values.shape)))
        return real(accumulator, shift, out_shift)

    with mock.patch.object(arith, "requantize", watch):
        yield seen


def _pool_strength(layer: AveragePool, x: Array) -> Strength:
    """A pool has a rounding of its own: the sum of kernel² values is on shift in_shift + log2(kernel²)."""
    size = (layer.kernel, layer.kernel)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))[:, :: layer.stride, :: layer.stride]
    total = windows.sum(axis=(-2, -1), dtype=np.int64)
    distance = layer.in_shift + int(np.log2(layer.kernel**2)) - layer.out_shift
    return strength_of(total, np.full(total.shape, distance))
