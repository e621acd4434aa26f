"""The network learns: one task of each kind learns two embedded scenes by heart, in fake-quantized training.

Four scenes, and all tasks: `benchmarks/overfit.py --task all`, docs/overfit.md.
"""

import subprocess
import sys
from pathlib import Path

import pytest

EPOCHS = 10  # enough for these two
PATIENCE = 900  # seconds


@pytest.mark.parametrize("task", ["det_rear", "seg_lane"])
def test_two_scenes_are_learnt_by_heart(repository: Path, task: str) -> None:
    """By the command that a user types."""
    command = [sys.executable, "benchmarks/overfit.py", "--task", task, "--scenes", "2", "--epochs", str(EPOCHS)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
