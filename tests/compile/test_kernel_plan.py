"""Which layers one kernel call computes, and in which order the calls come."""

import onnx
import pytest
import tvm

from compile.certify import layer_calls
from compile.files import Parameters
from compile.kernel_plan import KernelCall, kernel_calls, layer_entries
from compile.kernels.builder import WORTH_THREADS
from compile.kernels.conv import ConvKernel
from compile.layers import AddLayer, Upsample2x
from tests.compile.engines import integer_module
from tests.compile.toy import toy_network


@pytest.fixture(scope="module")
def toy() -> onnx.ModelProto:
    return toy_network()


@pytest.fixture(scope="module")
def integer(toy: onnx.ModelProto) -> tuple[tvm.IRModule, Parameters]:
    return integer_module(toy)[:2]


@pytest.fixture(scope="module")
def calls(integer: tuple[tvm.IRModule, Parameters]) -> list[KernelCall]:
    return kernel_calls(*integer)


def test_every_layer_once(integer: tuple[tvm.IRModule, Parameters]) -> None:
    names = [entry["name"] for entry in layer_entries(*integer)]
    assert sorted(names) == sorted(call.name for call in layer_calls(integer[0]))


def test_nothing_is_read_before_it_is_computed(integer: tuple[tvm.IRModule, Parameters]) -> None:
    module, parameters = integer
    computed = set(module["main"].params)
    for call in kernel_calls(module, parameters):
        for layer in call.layers:
            assert computed.issuperset(layer.call.arguments), "of the same group, or later"
        computed.update(layer.call.var for layer in call.layers)


def test_groups_are_of_small_convolutions_of_one_height(calls: list[KernelCall]) -> None:
    groups = [call for call in calls if len(call.layers) > 1 and isinstance(call.layers[0].kernel, ConvKernel)]
    assert groups, "the toy network has heads that do not wait for each other"
    for group in groups:
        kernels = [layer.kernel for layer in group.layers]
        assert all(isinstance(kernel, ConvKernel) and kernel.dots < WORTH_THREADS for kernel in kernels)
        assert len({kernel.target.height for kernel in kernels if isinstance(kernel, ConvKernel)}) == 1


def test_an_upsampling_is_inside_its_addition(calls: list[KernelCall]) -> None:
    (addition,) = [layer for call in calls for layer in call.layers if layer.inside]
    assert isinstance(addition.call.layer, AddLayer)
    (upsampling,) = addition.inside
    assert isinstance(upsampling.layer, Upsample2x)
    assert upsampling.arguments[0] in addition.call.arguments


def test_entries_of_a_call_stand_together(integer: tuple[tvm.IRModule, Parameters]) -> None:
    numbers = [entry["call"] for entry in layer_entries(*integer)]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(kernel_calls(*integer))))
