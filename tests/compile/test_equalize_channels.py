"""Channels are made alike by powers of two, and not a bit of the float graph changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile.importer import ImportedModel, import_onnx
from compile.onnx_writer import to_onnx
from compile.passes.equalize_channels import LARGEST, EqualizeChannels, factors_of, links
from compile.pipeline import run_passes
from tests.compile.models import ModelBuilder, random_picture, run_onnx

HW = (12, 14)


def chain(*, read_twice: bool = False, relu: bool = True, groups: int = 1) -> ImportedModel:
    """Two convolutions, the first one's channels of very different sizes."""
    b = ModelBuilder(HW, seed=2, quantized=False)
    first = b.conv("first", b.image(), 8)
    sizes = np.float32([0.01, 0.1, 0.3, 1, 2, 5, 20, 100])
    b.parameters["first.conv.weight"] *= sizes.reshape(-1, 1, 1, 1)
    between = b.node("Relu", [first], "first") if relu else first
    second = b.conv("second", between, 6, groups=groups)
    outputs = {"out": second}
    if read_twice:
        outputs["other"] = b.conv("third", between, 2)
    return import_onnx(b.finish(outputs))


def equalized(model: ImportedModel, peaks: np.ndarray) -> tuple[ImportedModel, dict[str, np.ndarray]]:
    parameters = dict(model.parameters)
    equalize = EqualizeChannels(parameters, {str(link.tensor.name): peaks for link in links(model.module)})
    return ImportedModel(run_passes(model.module, [equalize], None), parameters, model.output_names), equalize.factors


@pytest.mark.parametrize("relu", [True, False], ids=["ReLU between", "nothing between"])
@pytest.mark.parametrize("groups", [1, 2])
def test_not_a_bit_changes(relu: bool, groups: int) -> None:
    model = chain(relu=relu, groups=groups)
    after, factors = equalized(model, np.float32([0.01, 0.1, 0.3, 1, 2, 5, 20, 100]))
    (factor,) = factors.values()
    assert len(set(factor.tolist())) > 4
    assert (np.frexp(factor)[0] == 0.5).all()
    for seed in range(3):
        results = [
            run_onnx(to_onnx(entry.module, entry.parameters, entry.output_names), random_picture(HW, seed))["out"]
            for entry in (model, after)
        ]
        assert np.array_equal(*results)
    changed = [name for name in model.parameters if not np.array_equal(model.parameters[name], after.parameters[name])]
    assert set(changed) == {"first.conv.weight", "first.conv.bias", "second.conv.weight"}


def test_a_tensor_that_is_read_elsewhere_stays() -> None:
    assert links(chain(read_twice=True).module) == []


@settings(deadline=None)
@given(
    st.lists(st.floats(2.0**-10, 2.0**10, width=32), min_size=4, max_size=4),
    st.lists(st.floats(2.0**-10, 2.0**10, width=32), min_size=4, max_size=4),
)
def test_activation_and_weight_meet_half_way(peaks: list[float], weights: list[float]) -> None:
    weight = np.zeros((3, 4, 1, 1), np.float32)
    weight[1, :, 0, 0] = weights
    factor = factors_of(np.float32(peaks), weight, groups=1)
    ratio = np.log2(np.float64(peaks) / factor / (np.float64(weights) * factor))
    clipped = np.abs(np.log2(factor)) == LARGEST
    # to a power of two, f is off by a factor of 2^(1/2) at most, so the ratio by 2; what all have in common stays
    assert np.ptp(ratio[~clipped]) <= 2 + 1e-6 if (~clipped).any() else True


def test_channels_that_nothing_reads_or_that_are_0_stay() -> None:
    weight = np.zeros((2, 2, 1, 1), np.float32)
    weight[:, :, 0, 0] = [[4, 0], [2, 0]]  # two groups of two channels
    assert factors_of(np.float32([0, 9, 9, 9]), weight, groups=2).tolist()[0] == 1
    assert factors_of(np.float32([9, 0, 9, 9]), weight, groups=2).tolist()[1] == 1
