"""Patterns choose the step of every batch norm; each mistake is named."""

import pytest

from configs import ConfigError
from configs.common.training import FUSION_BN_PATTERNS
from configs.fusion import absorbing_steps

NAMES = ["backbone.stem.bn", "neck.lateral.bn", "det_person.score.bn", "seg_lane.conv.bn"]


def test_defaults_absorb_the_shared_part_first_and_any_head_second() -> None:
    assert absorbing_steps(FUSION_BN_PATTERNS, NAMES) == dict(zip(NAMES, (1, 1, 2, 2), strict=True))


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            {1: ["backbone", "spine"], 2: ["neck|det|seg"]},
            r"multi\.py: fusion_bn_patterns\.1: 'spine' matches no batch norm",
        ),
        (
            {1: ["backbone", "neck"], 2: ["det|seg|neck"]},
            r"fusion_bn_patterns\.2: neck\.lateral\.bn is matched by .* and by 'neck' of step 1",
        ),
        ({1: ["backbone"], 2: ["det|seg"]}, r"fusion_bn_patterns: no pattern matches neck\.lateral\.bn; .*left over"),
    ],
)
def test_mistakes_are_named(patterns: dict[int, list[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        absorbing_steps(patterns, NAMES, file="multi.py")
