"""Which kernel each layer of an integer module becomes, and with which constants: what LowerLayers writes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from compile.certify import LayerCall, layer_calls
from compile.kernels.conv import ConvKernel
from compile.kernels.elementwise import ArgmaxKernel, FlattenKernel, LayerKernel
from compile.kernels.instructions import Instructions
from compile.kernels.memory import Layout
from compile.kernels.packing import Window, pack_channels, pack_weight
from compile.kernels.requantize import Requantize
from compile.layers import ChannelArgmax, ConvLayer, FlattenMaps, Layer, Shape
from compile.rewrite import bindings_of, shape_of
from compile.storage import PICTURE, PLAIN, Storage, choose_storage

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


def kernel_calls(module: tvm.IRModule) -> list[KernelCall]:
    """The kernels of an integer module, one for each layer, in the order of execution."""
    calls = list(layer_calls(module))
    storage = choose_storage(calls, list(bindings_of(module["main"])[-1].value.fields))
    storage[module["main"].params[0]] = PICTURE
    names: dict[Kernel, str] = {}
    planned = []
    for call in calls:
        target = storage.get(call.var, PLAIN)  # what is no feature map lies plain
        shapes = [shape_of(argument) for argument in call.arguments]
        sources = [storage.get(argument, PLAIN) for argument in call.arguments]
        kernel = kernel_of(call.layer, shapes, sources, Layout(shape_of(call.var), target))
        name = names.setdefault(kernel, f"{call.layer.kind}_{len(names)}")
        planned.append(KernelCall(call, kernel, name, target))
    return planned


def kernel_of(layer: Layer, shapes: Sequence[Shape], sources: Sequence[Storage], target: Layout) -> Kernel:
    """The kernel that makes `target` of arguments of these shapes that lie so; how weights and biases lie is nothing.

    Layers that read plain read and write plain.
    """
    if isinstance(layer, FlattenMaps):
        return FlattenKernel(tuple(shapes), layer.fields)
    if isinstance(layer, ChannelArgmax):
        return ArgmaxKernel(shapes[0])
    if isinstance(layer, ConvLayer):
        return convolution_kernel(layer, shapes, sources, target)
    maps = [Layout(shape, storage) for shape, storage in zip(shapes, sources, strict=True)]
    return LayerKernel(layer, tuple(maps), target)


def convolution_kernel(
    layer: ConvLayer, shapes: Sequence[Shape], sources: Sequence[Storage], target: Layout
) -> ConvKernel:
    """As `kernel_of`, for x, weight OHWI, bias, weight_shift[, residual]."""
    source, kernel = Layout(shapes[0], sources[0]), shapes[1][1]
    window = Window(kernel, layer.stride, layer.padding, layer.groups, source.channels, target.channels)
    requantize = Requantize(target.storage, layer.relu)
    if layer.residual_shift is not None:
        scale = 2.0 ** (layer.out_shift - layer.residual_shift)
        requantize = Requantize(target.storage, layer.relu, sources[4], scale)
    return ConvKernel(window, source, target, requantize)


def packed_constants(
    layer: ConvLayer,
    kernel: ConvKernel,
    cpu: Instructions,
    weight: NDArray[np.int8],
    bias: NDArray[np.int32],
    weight_shift: NDArray[np.int32],
) -> list[NDArray[np.generic]]:
    """Weights, biases less what the offset of the input adds, and 2^(out_shift - grid), in the kernel's order."""
    offset = 0 if cpu.signed else kernel.source.storage.offset
    from_offset = offset * weight.astype(np.int64).sum(axis=(1, 2, 3))
    distance = layer.out_shift - (weight_shift.astype(np.int64) + layer.in_shift)
    return [
        pack_weight(weight, kernel.window),
        pack_channels((bias - from_offset).astype(np.int32), kernel.window),
        pack_channels(np.ldexp(np.float32(1), distance).astype(np.float32), kernel.window),
    ]
