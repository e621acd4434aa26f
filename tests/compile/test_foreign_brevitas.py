"""Graphs in the form in which Brevitas exports them (QCDQ): a Clip of integers between Q and DQ narrows their range."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compile.build import main
from compile.foreign import reference
from compile.foreign.network import Convolution
from runtime.tensor_model import TensorModel
from tests.compile.foreign_graphs import Array, Graph, in_float, network_of

S = 1 / 32
NARROW = (-127, 127)  # of Int8WeightPerTensorFloat, Brevitas' default for weights
FOUR_BITS = (-8, 7)
Range = tuple[int, int]


def clipped(g: Graph, x: str, bounds: Range) -> str:
    """The Clip alone; its bounds have the type of what it clips."""
    return g.node("Clip", [x, *(g.constant(np.int8(bound)) for bound in bounds)])


def activation(g: Graph, x: str, scale: float, bounds: Range | None = None) -> str:
    """QuantizeLinear, Clip where the range is not all of int8, DequantizeLinear."""
    more = [g.constant(np.float32(scale)), g.constant(np.int8(0))]
    integers = g.node("QuantizeLinear", [x, *more])
    return g.node("DequantizeLinear", [integers if bounds is None else clipped(g, integers, bounds), *more])


def weights(g: Graph, shape: tuple[int, ...], scale: float, bounds: Range) -> str:
    """Integers of the model, some of them outside the range."""
    values = g.rng.integers(-128, 128, shape).astype(np.int8)
    values.ravel()[:2] = -128, 127
    integers = g.constant(values)
    more = [g.constant(np.float32(scale)), g.constant(np.int8(0))]
    return g.node("DequantizeLinear", [clipped(g, integers, bounds), *more])


def quantized_weights(g: Graph, shape: tuple[int, ...], scale: Array, bounds: Range) -> str:
    """Floats that the graph itself quantizes, one scale to a channel, some of them outside the range."""
    real = g.constant((g.rng.integers(-128, 128, shape) * scale.reshape(-1, 1, 1, 1)).astype(np.float32))
    more = [g.constant(scale), g.constant(np.zeros(scale.shape, np.int8))]
    integers = clipped(g, g.node("QuantizeLinear", [real, *more], axis=0), bounds)
    return g.node("DequantizeLinear", [integers, *more], axis=0)


def bias(g: Graph, count: int, scale: float) -> str:
    """Int32Bias."""
    return g.weights((count,), scale, dtype=np.int32)


def narrow_weights(g: Graph) -> str:
    """Brevitas' defaults."""
    x = activation(g, "x", S)
    hidden = g.node("Conv", [x, weights(g, (8, 6, 3, 3), S / 8, NARROW), bias(g, 8, S * S / 8)], pads=[1, 1, 1, 1])
    hidden = activation(g, g.node("Relu", [hidden]), S * 4)
    return activation(g, g.node("Conv", [hidden, weights(g, (4, 8, 1, 1), S, NARROW)]), S * 32)


def narrow_activations(g: Graph) -> str:
    """Of the picture, behind a layer with a ReLU, and of the output."""
    x = activation(g, "x", S / 2, NARROW)
    hidden = g.node("Conv", [x, weights(g, (8, 6, 3, 3), S / 8, NARROW), bias(g, 8, S * S / 16)], strides=[2, 1])
    hidden = activation(g, g.node("Relu", [hidden]), S, (0, 100))
    return activation(g, g.node("Conv", [hidden, weights(g, (4, 8, 1, 1), S / 8, NARROW)]), S, NARROW)


def four_bits(g: Graph) -> str:
    x = activation(g, "x", S * 8, FOUR_BITS)
    scales = np.float32([S / 4, S / 2] * 4)
    hidden = activation(g, g.node("Conv", [x, quantized_weights(g, (8, 6, 3, 3), scales, FOUR_BITS)]), S * 4, FOUR_BITS)
    return activation(g, g.node("Conv", [hidden, weights(g, (4, 8, 1, 1), S, FOUR_BITS)]), S / 2)


def narrow_vector(g: Graph) -> str:
    """A flattened map that is clipped keeps its order."""
    flat = activation(g, g.node("Flatten", [activation(g, "x", S)]), S / 2, NARROW)
    return activation(g, g.node("Gemm", [flat, weights(g, (40, 6 * 9 * 7), S, NARROW)], transB=1), S * 32, NARROW)


GRAPHS: list[Callable[[Graph], str]] = [narrow_weights, narrow_activations, four_bits, narrow_vector]


@pytest.mark.parametrize("make", GRAPHS, ids=lambda make: make.__name__)
def test_the_bits_of_onnx_runtime(make: Callable[[Graph], str], tmp_path: Path) -> None:
    g = Graph()
    path = g.finish(tmp_path / "model.onnx", make(g))
    assert main(["--onnx", str(path), "--out", str(tmp_path)]) == 0
    model, (_, network) = TensorModel(tmp_path / "model.so", threads=1), network_of(path)
    for seed in range(3):
        picture = g.picture(seed)
        expected = in_float(path, picture)
        for results in (model.run(picture), reference.run(network, picture)):
            (found,) = results.values()
            assert np.array_equal(found, expected)
        assert len(np.unique(expected)) > 15


def test_the_range_is_that_of_the_clip(tmp_path: Path) -> None:
    g = Graph()
    path = g.finish(tmp_path / "model.onnx", narrow_activations(g))
    _, network = network_of(path)
    for layer in network.layers:
        if isinstance(layer.kind, Convolution):
            assert (layer.kind.weight.min(), layer.kind.weight.max()) == NARROW
    (found,) = reference.run(network, g.picture(0)).values()
    assert found.min() == -127 * S
