"""The arithmetic must run where torch is not installed: in the compiler and on a device."""

import subprocess
import sys
from pathlib import Path

TORCH_MODULES = {"batch_norm", "fake", "observer", "processes"}


def test_the_arithmetic_needs_numpy_only(repository: Path) -> None:
    modules = sorted(path.stem for path in (repository / "quant").glob("*.py") if path.stem not in TORCH_MODULES)
    assert {"arith", "params", "certificate", "fold", "postprocess"} <= set(modules)
    imports = ", ".join("quant" if name == "__init__" else f"quant.{name}" for name in modules)
    code = f"import sys; sys.modules['torch'] = None; import {imports}"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
