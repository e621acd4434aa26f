"""The Python example of docs/runtime.md runs as it stands."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.artifact import manifest_path


def test_the_example_runs(
    library: Path,
    write: Callable[..., Path],
    scene: np.ndarray,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(library, tmp_path / "model.so")
    shutil.copy(manifest_path(library), tmp_path / "model.json")
    write("road.jpg", scene)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (repository / "docs" / "runtime.md").read_text(), re.DOTALL)
    exec(compile(example, "docs/runtime.md", "exec"), {})
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["det_thing thing 0.88 (0.0, 16.0, 128.0, 80.0)", "seg_bright (80, 128) uint8"]
    assert (tmp_path / "overlay.jpg").exists()
