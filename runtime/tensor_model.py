"""A compiled foreign model: one float tensor in, the outputs of its ONNX out. What they mean, the caller knows."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import FOREIGN, check_hash, check_library, manifest_path, read_manifest
from runtime.engine import load_module, load_tvm
from runtime.errors import ArtifactError, UsageError
from runtime.files import write_atomically
from runtime.schema import CURE, Reader

DTYPES = ("float32", "int64")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the model's interface, named and shaped as in the ONNX. `scale` is that of its int8 values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "scale": self.scale}

    @classmethod
    def from_json(cls, reader: Reader) -> "TensorSpec":
        """Reads and checks."""
        spec = cls(reader.text("name"), reader.integers("shape"), reader.text("dtype", DTYPES), reader.number("scale"))
        reader.finish()
        return spec


@dataclass(frozen=True)
class TensorManifest:
    """The `.json` beside the `.so` of a foreign model. `layers`: per layer its tensor, kind and ONNX node."""

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Mapping[str, Any], ...]
    target: Mapping[str, Any]
    library_sha256: str
    sources: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Writes the JSON in one step."""
        content = {
            "kind": FOREIGN,
            "input": self.input.to_json(),
            "outputs": [entry.to_json() for entry in self.outputs],
            "layers": [dict(entry) for entry in self.layers],
            "target": dict(self.target),
            "library_sha256": self.library_sha256,
            "sources": dict(self.sources),
        }
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "TensorManifest":
        """ArtifactError names the file, the key and the cure."""
        data = read_manifest(path)
        if not isinstance(data, dict) or data.get("kind") != FOREIGN:
            raise ArtifactError(
                f"{path}: describes no foreign model; run this one with `python -m runtime.infer`, or {CURE}"
            )
        reader = Reader(data, str(path))
        reader.text("kind")
        manifest = cls(
            input=TensorSpec.from_json(reader.child("input")),
            outputs=tuple(TensorSpec.from_json(child) for child in reader.children("outputs")),
            layers=tuple(child.mapping() for child in reader.children("layers")),
            target=reader.child("target").mapping(),
            library_sha256=reader.text("library_sha256"),
            sources={key: str(value) for key, value in reader.child("sources").mapping().items()},
        )
        reader.finish()
        return manifest


class TensorModel:
    """Loaded and ready. ArtifactError if the files cannot be used. `threads`: see `runtime.engine.CompiledEngine`."""

    def __init__(self, library: str | os.PathLike[str], threads: int | None = None) -> None:
        path = check_library(library)
        self.manifest = TensorManifest.load(manifest_path(path))
        check_hash(path, self.manifest.library_sha256)
        _, self._machine = load_module(library, self.manifest.target, threads)
        self._tvm = load_tvm()

    def run(self, value: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for an input float32 of the manifest's shape; UsageError for another."""
        expected = self.manifest.input
        if value.dtype != np.float32 or value.shape != expected.shape:
            raise UsageError(f"the input {expected.name} is float32 {expected.shape}, not {value.dtype} {value.shape}")
        results = self._machine["main"](self._tvm.runtime.tensor(np.ascontiguousarray(value)))
        return {spec.name: result.numpy() for spec, result in zip(self.manifest.outputs, results, strict=True)}
