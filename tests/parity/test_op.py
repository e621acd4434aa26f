"""Every operator, all parties: inputs that saturate at both ends and hit ties of both kinds, and nothing differs."""

import numpy as np
import pytest

from compile.layers import ConvLayer
from tests.parity.numpy_interpreter import Strength
from tests.parity.operators import CONVOLUTIONS, FARTHEST, pointwise_cases
from tests.parity.trial import Trial

POINTWISE = tuple(pointwise_cases(np.random.default_rng(0)))
ENDS_AT_ZERO = {name for name, spec in CONVOLUTIONS.items() if spec.relu}
ENDS_AT_ZERO |= {"add_relu", "add_to_finer", "upsampling", "upsampling_other_way"}
ONTO_FINER_GRIDS = {"add_to_finer", "requantized_up"}  # nothing is rounded
NEVER_SATURATES = {"requantized_down", "add_equal"}  # onto grids so coarse that everything fits


@pytest.mark.parametrize("case", CONVOLUTIONS | FARTHEST)
def test_convolutions_agree(convolutions: Trial, case: str) -> None:
    assert of_case(convolutions, case) == []


@pytest.mark.parametrize("case", POINTWISE)
def test_other_operators_agree(pointwise: Trial, case: str) -> None:
    assert of_case(pointwise, case) == []


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_were_tried_hard(convolutions: Trial, case: str) -> None:
    tried_hard(case, strength(convolutions, case))


@pytest.mark.parametrize("case", POINTWISE)
def test_other_operators_were_tried_hard(pointwise: Trial, case: str) -> None:
    tried_hard(case, strength(pointwise, case))


def of_case(trial: Trial, case: str) -> list[str]:
    return [str(found) for found in trial.differences() if found.layer.split(".")[0] == case]


def strength(trial: Trial, case: str) -> Strength:
    """Of the operator itself, not of what leads to it."""
    layers = {name: found for name, found in trial.strengths().items() if name.split(".")[0] == case}
    (found,) = (found for name, found in layers.items() if "lead" not in name and "shortcut" not in name)
    return found


def tried_hard(case: str, found: Strength) -> None:
    if case not in NEVER_SATURATES:
        assert found.above > 0
        assert found.below > 0 or case in ENDS_AT_ZERO
    if case not in ONTO_FINER_GRIDS:
        assert min(found.even_ties, found.odd_ties) > 0
        assert found.negative_ties > 0 or case in ENDS_AT_ZERO


def test_the_farthest_shifts(convolutions: Trial) -> None:
    assert min(distances(convolutions, "far_left")) == -24
    assert max(distances(convolutions, "far_right")) == 30
    left = strength(convolutions, "far_left")
    assert min(left.below, left.above) > 0.3 * left.elements


def distances(trial: Trial, case: str) -> list[int]:
    """By how many places each channel is shifted to the right at the end."""
    layer: ConvLayer = trial.parties.layers[f"{case}.unit.conv"].layer
    weight_shift = trial.parties.parameters[f"{case}.unit.conv.weight_shift"]
    return [layer.in_shift + int(shift) - layer.out_shift for shift in weight_shift]


def test_every_value_of_an_int8_occurs(convolutions: Trial, pointwise: Trial) -> None:
    for trial in (convolutions, pointwise):
        values = trial.parties.numpy(trial.pictures[0])
        leads = [value for name, value in values.items() if ".lead" in name and value.min() < 0]
        assert set(np.unique(np.concatenate([value.reshape(-1) for value in leads]))) == set(range(-128, 128))
