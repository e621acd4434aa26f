"""The kernel of an addition that upsamples an operand on the way."""

import numpy as np
import pytest

from compile.kernels.elementwise import LayerKernel
from compile.kernels.memory import Layout
from compile.layers import AddLayer, Shape
from compile.storage import PLAIN, Storage
from quant import arith
from tests.compile.engines import TARGET, run_prim_func
from tests.compile.test_layers import int8

LARGE: list[Shape] = [(1, 6, 10, 32), (1, 5, 9, 64), (1, 7, 4, 5), (1, 4, 3, 50), (1, 2, 2, 100), (1, 1, 3, 16)]
LAYERS = [AddLayer(4, 5, 4, relu=True), AddLayer(7, 3, 5, relu=False), AddLayer(-4, 12, 12, relu=False)]
TARGETS = [Storage("uint8", 0, border=1), Storage("uint8", 128), PLAIN]


def half(shape: Shape) -> Shape:
    return (1, -(-shape[1] // 2), -(-shape[2] // 2), shape[3])


@pytest.mark.parametrize("upsampled", [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", LARGE)
def test_equals_an_upsampling_and_an_addition(shape: Shape, layer: AddLayer, upsampled: tuple[bool, bool]) -> None:
    target = TARGETS[0] if layer.relu else TARGETS[1 + upsampled[0]]
    sources = [Storage("uint8", 128, border=1), Storage("uint8", 128)]
    shapes = [half(shape) if is_small else shape for is_small in upsampled]
    maps = tuple(Layout(*entry) for entry in zip(shapes, sources, strict=True))
    run = run_prim_func(LayerKernel(layer, maps, Layout(shape, target)).build(TARGET.instructions))
    rng = np.random.default_rng(0)
    values = [int8(rng, entry) for entry in shapes]
    out = np.full(target.shape(shape), 77, target.dtype)
    run(*(storage.stored(value) for storage, value in zip(sources, values, strict=True)), out)
    a, b = (
        arith.upsample2x(value, shape[1:3]) if is_small else value
        for value, is_small in zip(values, upsampled, strict=True)
    )
    expected = arith.add_layer(a, layer.a_shift, b, layer.b_shift, relu=layer.relu, out_shift=layer.out_shift)
    assert np.array_equal(out, target.stored(expected)), "border included"
