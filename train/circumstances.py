"""run.json: what a run's numbers depend on beside its config: seed, versions, processor, threads."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path

import torch

from configs.schema import PREFIXES
from runtime.files import write_atomically
from runtime.processor import processor_name

PACKAGES = ("bitroad", "torch", "numpy", "opencv-python", "onnx", "onnxruntime", "lightning-fabric", "apache-tvm")


def version_of(package: str) -> str | None:
    """None where it is not installed: a checkout can be run as it is."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def note_circumstances(path: Path, step: int, *, seed: int, ctx: str, bfloat16: bool) -> None:
    """Notes those of `step` in the file, in place of those of the same step that an earlier call noted."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[PREFIXES[step]] = {
        "seed": seed,
        "ctx": ctx,
        "precision": "bfloat16" if bfloat16 else "float32",
        "threads": torch.get_num_threads(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
    }
    write_atomically(path, (json.dumps(known, indent=1) + "\n").encode())
