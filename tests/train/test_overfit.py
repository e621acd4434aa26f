"""The network learns: one task of each kind learns four embedded scenes by heart, in fake-quantized training."""

from pathlib import Path

import pytest

from benchmarks.overfit import GOAL, overfit

EPOCHS = 14  # enough for these two


@pytest.mark.parametrize("task", ["det_rear", "seg_lane"])
def test_four_scenes_are_learnt_by_heart(task: str, tmp_path: Path) -> None:
    assert overfit(task, tmp_path, epochs=EPOCHS, quiet=True) >= GOAL
