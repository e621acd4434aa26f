"""Patterns decide which step absorbs a batch norm; whatever does not fit is named."""

import pytest

from train.errors import FusionError
from train.fusion import fusion_plan

NAMES = ["backbone.stem.bn", "neck.up.bn", "det_person.score.bn", "seg_lane.logits.bn"]


def test_each_batch_norm_goes_to_its_step() -> None:
    plan = fusion_plan(NAMES, {1: [r"backbone\.", r"neck\."], 2: [r"(?!backbone\.|neck\.)"]})
    assert plan == {1: ("backbone.stem.bn", "neck.up.bn"), 2: ("det_person.score.bn", "seg_lane.logits.bn")}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({1: [r"backbone\.", r"nek\."], 2: [r"det_|seg_"]}, r"F: key\.1: 'nek.*matches no batch norm.*backbone\.stem"),
        ({1: [r"backbone\.", r"neck\.", r"back"], 2: [r"det_|seg_"]}, r"key\.1: 'back' matches 'backbone\.stem\.bn'"),
        ({1: [r"backbone\.", r"neck\."], 2: [r".*"]}, r"key\.2: '\.\*' matches 'backbone\.stem\.bn', which F: key\.1"),
        ({1: [r"backbone\.", r"neck\."], 2: [r"det_"]}, r"1 batch norm.*left when step 3 begins.*seg_lane\.logits\.bn"),
        ({1: [r"stem"], 2: [r".*"]}, r"'stem' matches no"),
    ],
)
def test_what_does_not_fit_is_named(patterns: dict[int, list[str]], message: str) -> None:
    with pytest.raises(FusionError, match=message):
        fusion_plan(NAMES, patterns, where="F: key")
