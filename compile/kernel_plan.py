"""Which kernel each layer of an integer module becomes, and with which constants: what LowerLayers writes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from compile.certify import LayerCall, layer_calls
from compile.files import Parameters
from compile.kernels.conv import ConvKernel
from compile.kernels.elementwise import ArgmaxKernel, FlattenKernel, LayerKernel
from compile.kernels.epilogue import Epilogue, NarrowEpilogue, WideEpilogue
from compile.kernels.instructions import Instructions
from compile.kernels.memory import Layout
from compile.kernels.packing import Window, pack_channels, pack_weight
from compile.kernels.requantize import Requantize
from compile.layers import ChannelArgmax, ConvLayer, FlattenMaps, Layer, Shape
from compile.rewrite import bindings_of, shape_of
from compile.storage import PICTURE, PLAIN, Storage, choose_storage
from quant.arith import INT8_MIN
from quant.certificate import channel_bounds

Kernel = ConvKernel | LayerKernel | ArgmaxKernel | FlattenKernel


@dataclass(frozen=True)
class KernelCall:
    """A layer as a kernel: `function` is the kernel's name, which equal kernels share, `storage` that of the result."""

    layer: LayerCall
    kernel: Kernel
    function: str
    storage: Storage

    def to_json(self) -> dict[str, Any]:
        """What a recorder of the running kernels needs to know."""
        return {"name": self.layer.name, "function": self.function, "storage": asdict(self.storage)}


def kernel_calls(module: tvm.IRModule, parameters: Parameters) -> list[KernelCall]:
    """The kernels of an integer module with these weights, one for each layer, in the order of execution."""
    calls = list(layer_calls(module))
    storage = choose_storage(calls, list(bindings_of(module["main"])[-1].value.fields))
    storage[module["main"].params[0]] = PICTURE
    names: dict[Kernel, str] = {}
    planned = []
    for call in calls:
        target = storage.get(call.var, PLAIN)  # what is no feature map lies plain
        shapes = [shape_of(argument) for argument in call.arguments]
        sources = [storage.get(argument, PLAIN) for argument in call.arguments]
        narrow = isinstance(call.layer, ConvLayer) and has_narrow_sums(
            call.layer, *(parameters[argument.name] for argument in call.arguments[1:4])
        )
        kernel = kernel_of(call.layer, shapes, sources, Layout(shape_of(call.var), target), narrow=narrow)
        name = names.setdefault(kernel, f"{call.layer.kind}_{len(names)}")
        planned.append(KernelCall(call, kernel, name, target))
    return planned


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
