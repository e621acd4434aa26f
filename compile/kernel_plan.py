"""Which kernel each layer of an integer module becomes, and with which constants: what LowerLayers writes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from compile.certify import LayerCall, layer_calls
from compile.files import Parameters
from compile.kernels.builder import WORTH_THREADS
from compile.kernels.conv import ConvGroup, ConvKernel
from compile.kernels.elementwise import ArgmaxKernel, FlattenGroup, FlattenKernel, LayerKernel
from compile.kernels.epilogue import Epilogue, NarrowEpilogue, WideEpilogue
from compile.kernels.instructions import Instructions
from compile.kernels.memory import Layout
from compile.kernels.packing import Window, pack_channels, pack_weight
from compile.kernels.requantize import Requantize
from compile.layers import AddLayer, ChannelArgmax, ConvLayer, FlattenMaps, Layer, Shape, Upsample2x
from compile.rewrite import bindings_of, shape_of
from compile.storage import PICTURE, PLAIN, Storage, choose_storage
from quant.arith import INT8_MIN
from quant.certificate import channel_bounds

Kernel = ConvKernel | LayerKernel | ArgmaxKernel | FlattenKernel
AnyKernel = Kernel | ConvGroup | FlattenGroup


@dataclass(frozen=True)
class PlannedLayer:
    """A layer with the kernel that computes it, and the storage of its result.

    The arguments of `call` are what the kernel reads: where an upsampling is part of it, what that one reads.
    `inside` are the layers that are part of the kernel; their results are never in memory.
    """

    call: LayerCall
    kernel: Kernel
    storage: Storage
    inside: tuple[LayerCall, ...]


@dataclass(frozen=True)
class KernelCall:
    """Layers that one call computes: one, or a group. Equal kernels share the name `function`."""

    layers: tuple[PlannedLayer, ...]
    kernel: AnyKernel
    function: str

    def to_json(self, number: int) -> list[dict[str, Any]]:
        """The manifest's entry for every layer; `number` is that of the call. Layers inside have no storage."""
        entries = []
        for layer in self.layers:
            entries += [self._entry(number, call, 0, None) for call in layer.inside]
            macs = getattr(layer.kernel, "macs", 0)
            entries.append(self._entry(number, layer.call, macs, asdict(layer.storage)))
        return entries

    def _entry(self, number: int, call: LayerCall, macs: int, storage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "name": call.name,
            "call": number,
            "function": self.function,
            "storage": storage,
            "kind": call.layer.kind,
            "shift": getattr(call.layer, "out_shift", None),
            "macs": macs,
        }


def kernel_calls(module: tvm.IRModule, parameters: Parameters) -> list[KernelCall]:
    """The kernel calls of an integer module with these weights, in the order of execution."""
    names: dict[AnyKernel, str] = {}
    calls = []
    for layers in grouped(planned_layers(module, parameters)):
        kernel = together([layer.kernel for layer in layers])
        kind = layers[0].call.layer.kind + ("_group" if len(layers) > 1 else "")
        calls.append(KernelCall(layers, kernel, names.setdefault(kernel, f"{kind}_{len(names)}")))
    return calls


def together(kernels: Sequence[Kernel]) -> AnyKernel:
    """One kernel that does what all of these do."""
    if len(kernels) == 1:
        return kernels[0]
    convolutions = tuple(kernel for kernel in kernels if isinstance(kernel, ConvKernel))
    copies = tuple(kernel for kernel in kernels if isinstance(kernel, FlattenKernel))
    return ConvGroup(convolutions) if convolutions else FlattenGroup(copies)


def layer_entries(module: tvm.IRModule, parameters: Parameters) -> list[dict[str, Any]]:
    """The manifest's entries for the layers of an integer module, in the order of execution."""
    calls = enumerate(kernel_calls(module, parameters))
    return [entry for number, call in calls for entry in call.to_json(number)]


def planned_layers(module: tvm.IRModule, parameters: Parameters) -> Iterator[PlannedLayer]:
    """A kernel for every layer that is not inside another one's."""
    calls, outputs = list(layer_calls(module)), list(bindings_of(module["main"])[-1].value.fields)
    storage = choose_storage(calls, outputs)
    storage[module["main"].params[0]] = PICTURE
    inside = upsamplings_inside(calls, outputs)
    for call in calls:
        if call.var in inside:
            continue
        target = storage.get(call.var, PLAIN)  # what is no feature map lies plain
        parts = [inside[argument] for argument in call.arguments if argument in inside]
        arguments = [inside[x].arguments[0] if x in inside else x for x in call.arguments]
        sources = [storage.get(argument, PLAIN) for argument in arguments]
        narrow = isinstance(call.layer, ConvLayer) and has_narrow_sums(
            call.layer, *(parameters[argument.name] for argument in arguments[1:4])
        )
        layout = Layout(shape_of(call.var), target)
        kernel = kernel_of(call.layer, [shape_of(x) for x in arguments], sources, layout, narrow=narrow)
        yield PlannedLayer(replace(call, arguments=tuple(arguments)), kernel, target, tuple(parts))


def upsamplings_inside(calls: Sequence[LayerCall], outputs: Sequence[relax.Expr]) -> dict[relax.Expr, LayerCall]:
    """The upsamplings that one addition alone reads: it does them on the way."""
    read = Counter([*outputs, *(argument for call in calls for argument in call.arguments)])
    added = {argument for call in calls if isinstance(call.layer, AddLayer) for argument in call.arguments}
    upsampled = [call for call in calls if isinstance(call.layer, Upsample2x)]
    return {call.var: call for call in upsampled if call.var in added and read[call.var] == 1}


def grouped(layers: Iterable[PlannedLayer]) -> Iterator[tuple[PlannedLayer, ...]]:
    """The layers in an order of execution, in groups where they do not wait for each other: convolutions of one height
    that are too small for threads of their own, and copies of heads.

    Layers as far from the picture as each other do not wait for each other.
    """
    distance: dict[relax.Expr, int] = {}
    groups: dict[tuple[int, tuple[str, int]] | relax.Expr, list[PlannedLayer]] = defaultdict(list)
    group_of: dict[relax.Expr, list[PlannedLayer]] = {}
    for layer in layers:
        call = layer.call
        distance[call.var] = 1 + max(distance.get(argument, 0) for argument in call.arguments)
        kind = group_kind(layer.kernel)
        group_of[call.var] = groups[call.var if kind is None else (distance[call.var], kind)]
        group_of[call.var].append(layer)
    done: set[int] = set()

    def execute(group: list[PlannedLayer]) -> Iterator[tuple[PlannedLayer, ...]]:
        if id(group) in done:
            return
        done.add(id(group))
        for layer in group:
            for argument in layer.call.arguments:
                if argument in group_of:
                    yield from execute(group_of[argument])
        yield tuple(group)

    for group in groups.values():
        yield from execute(group)


def group_kind(kernel: Kernel) -> tuple[str, int] | None:
    """What kernels must share to be put together; None for one that stays alone."""
    if isinstance(kernel, ConvKernel) and kernel.dots < WORTH_THREADS:
        return "convolution", kernel.target.height
    return ("flatten", 0) if isinstance(kernel, FlattenKernel) else None


def has_narrow_sums(
    layer: ConvLayer, weight: NDArray[np.int8], bias: NDArray[np.int32], weight_shift: NDArray[np.int32]
) -> bool:
    """Whether a convolution with these weights is one for NarrowEpilogue."""
    largest = channel_bounds(
        weight, weight_shift, bias, input_shift=layer.in_shift, input_max=-INT8_MIN, residual_shift=layer.residual_shift
    )
    return NarrowEpilogue.fits(largest, distances_of(layer, weight_shift), residual_distance_of(layer))


def distances_of(layer: ConvLayer, weight_shift: NDArray[np.int32]) -> NDArray[np.int64]:
    """By how many bits a convolution's sums go to the right, per output channel."""
    return weight_shift.astype(np.int64) + layer.in_shift - layer.out_shift


def residual_distance_of(layer: ConvLayer) -> int:
    """The same of a convolution's residual, 0 where it has none."""
    return 0 if layer.residual_shift is None else layer.residual_shift - layer.out_shift


def kernel_of(
    layer: Layer, shapes: Sequence[Shape], sources: Sequence[Storage], target: Layout, *, narrow: bool
) -> Kernel:
    """The kernel that makes `target` of arguments of these shapes that lie so; how weights and biases lie is nothing.

    Layers that read plain read and write plain. `narrow` is what `has_narrow_sums` says of a convolution.
    """
    if isinstance(layer, FlattenMaps):
        return FlattenKernel(tuple(shapes), layer.fields)
    if isinstance(layer, ChannelArgmax):
        return ArgmaxKernel(shapes[0])
    if isinstance(layer, ConvLayer):
        return convolution_kernel(layer, shapes, sources, target, narrow=narrow)
    maps = [Layout(shape, storage) for shape, storage in zip(shapes, sources, strict=True)]
    return LayerKernel(layer, tuple(maps), target)


def convolution_kernel(
    layer: ConvLayer, shapes: Sequence[Shape], sources: Sequence[Storage], target: Layout, *, narrow: bool
) -> ConvKernel:
    """As `kernel_of`, for x, weight OHWI, bias, weight_shift[, residual]."""
    source, kernel = Layout(shapes[0], sources[0]), shapes[1][1]
    window = Window(kernel, layer.stride, layer.padding, layer.groups, source.channels, target.channels)
    kind: type[Epilogue] = NarrowEpilogue if narrow else WideEpilogue
    residual = None if layer.residual_shift is None else sources[4]
    epilogue = kind(Requantize(target.storage, layer.relu), residual, residual_distance_of(layer))
    return ConvKernel(window, source, target, epilogue)


def packed_constants(
    layer: ConvLayer,
    kernel: ConvKernel,
    cpu: Instructions,
    weight: NDArray[np.int8],
    bias: NDArray[np.int32],
    weight_shift: NDArray[np.int32],
) -> list[NDArray[np.generic]]:
    """Weights, the sums to begin with, and the constants of the epilogue, in the kernel's order."""
    offset = 0 if cpu.signed else kernel.source.storage.offset
    from_offset = offset * weight.astype(np.int64).sum(axis=(1, 2, 3))
    distances = distances_of(layer, weight_shift)
    # the sums begin and end modulo 2^32
    first = (bias - from_offset + kernel.epilogue.first_sums(distances)).astype(np.int32)
    per_channel = [first, *kernel.epilogue.channel_constants(distances)]
    return [pack_weight(weight, kernel.window), *(pack_channels(values, kernel.window) for values in per_channel)]
