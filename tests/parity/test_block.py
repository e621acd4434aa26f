"""The network's blocks, all parties, with shifts at which many values saturate."""

import pytest

from compile.layers import AddLayer, ConvLayer
from tests.parity.block_cases import block_cases
from tests.parity.trial import Trial


@pytest.mark.parametrize("case", block_cases())
def test_all_parties_agree(blocks: Trial, case: str) -> None:
    found = [str(difference) for difference in blocks.differences() if difference.layer.split(".")[0] == case]
    assert found == []


@pytest.mark.parametrize("case", block_cases())
def test_it_was_tried_hard(blocks: Trial, case: str) -> None:
    found = [found for name, found in blocks.strengths().items() if name.split(".")[0] == case]
    total = sum(found[1:], found[0])
    assert total.saturated > 0.01
    assert min(total.even_ties, total.odd_ties) > 0


def test_every_form_of_a_layer_occurs(blocks: Trial) -> None:
    """So that a block that loses its residual, its merge or its ReLU on the way is seen here."""
    layers = {name: call.layer for name, call in blocks.parties.layers.items()}
    residual = {name for name, layer in layers.items() if getattr(layer, "residual_shift", None) is not None}
    assert {name.split(".")[0] for name in residual} == {name for name in block_cases() if not name.startswith("sep")}
    assert {name for name, layer in layers.items() if isinstance(layer, AddLayer)} == {
        "block_merge.block.merge",
        *(f"neck.neck.sums.{level}" for level in range(3)),
    }
    plain = {name for name, layer in layers.items() if isinstance(layer, ConvLayer) and not layer.relu}
    assert {"separable_stride_2.block.pointwise.conv", "block_stride_2.block.shortcut.pointwise.conv"} <= plain
    assert "separable.block.pointwise.conv" not in plain
