"""The compiled model on disk: a `.so` and the manifest, the `.json` beside it, which says how to feed it and read it.

`compile.build` fills a `Manifest` and saves it; `runtime` loads it. This file is the definition of that JSON;
`runtime/schema.py` holds the types of its parts.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from runtime.errors import ArtifactError
from runtime.files import write_atomically
from runtime.schema import (
    DetectionTask,
    InputGeometry,
    Output,
    Reader,
    SegmentationTask,
    Task,
    read_task,
)

SCHEMA_VERSION = 3
FOREIGN = "tensors"  # `kind` in the description of a model that has no tasks, see runtime/tensor_model.py
ELF_MAGIC = b"\x7fELF"
REBUILD = "build the model again with `python -m compile.build`"


@dataclass(frozen=True)
class Manifest:
    """All that is needed to run a compiled model and to show what it found.

    `layers` has one entry per layer of the integer graph, in the order of execution: `name` (the unit's dotted name),
    `shift` (of its int8 output), `call` (the number of the kernel call that computes it, maybe with others),
    `function` (the kernel), `storage` (how its result lies in memory, null where it never does), `macs` (its
    multiply-adds) and what else `compile.verify` needs. `certificate` holds the
    bounds per layer, `target` what the code was generated for. `library_sha256` is the hash of the `.so`, `sources`
    maps the names of the files that the build read to their sha256.
    """

    input: InputGeometry
    uses_im_hw: bool
    tasks: tuple[Task, ...]
    outputs: tuple[Output, ...]
    layers: tuple[Mapping[str, Any], ...]
    certificate: tuple[Mapping[str, Any], ...]
    target: Mapping[str, Any]
    library_sha256: str
    sources: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON-able dictionaries, in the order of the fields."""
        return {
            "schema_version": self.schema_version,
            "input": self.input.to_json(),
            "uses_im_hw": self.uses_im_hw,
            "tasks": [task.to_json() for task in self.tasks],
            "outputs": [output.to_json() for output in self.outputs],
            "layers": [dict(layer) for layer in self.layers],
            "certificate": [dict(bound) for bound in self.certificate],
            "target": dict(self.target),
            "library_sha256": self.library_sha256,
            "sources": dict(self.sources),
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "manifest") -> "Manifest":
        """Inverse of `to_json`. `where` names the file in errors; ArtifactError names the key that is wrong."""
        reader = Reader(data, where)
        version = reader.integer("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"{where}: schema_version is {version}, this runtime reads {SCHEMA_VERSION}; {REBUILD}, "
                "or use the runtime it was built with"
            )
        manifest = cls(
            input=InputGeometry.from_json(reader.child("input")),
            uses_im_hw=reader.boolean("uses_im_hw"),
            tasks=tuple(read_task(child) for child in reader.children("tasks")),
            outputs=tuple(Output.from_json(child) for child in reader.children("outputs")),
            layers=tuple(child.mapping() for child in reader.children("layers")),
            certificate=tuple(child.mapping() for child in reader.children("certificate")),
            target=reader.child("target").mapping(),
            library_sha256=reader.text("library_sha256"),
            sources={key: str(value) for key, value in reader.child("sources").mapping().items()},
        )
        reader.finish()
        manifest.check(where)
        return manifest

    def check(self, where: str = "manifest") -> None:
        """What no single key shows: unique names, an output of every kind for every task. ArtifactError otherwise."""
        names = [task.name for task in self.tasks]
        if not names:
            raise ArtifactError(f"{where}: tasks is empty: a model without a task has nothing to say; {REBUILD}")
        for kind, found in (("tasks", names), ("outputs", [output.name for output in self.outputs])):
            twice = sorted({name for name in found if found.count(name) > 1})
            if twice:
                raise ArtifactError(f"{where}: {kind}: '{twice[0]}' appears twice; {REBUILD}")
        for index, output in enumerate(self.outputs):
            if output.task not in names:
                raise ArtifactError(f"{where}: outputs[{index}].task: no task is called '{output.task}'; {REBUILD}")
        roles = {(output.task, output.role) for output in self.outputs}
        for task in self.tasks:
            for role in ("boxes", "packed") if isinstance(task, DetectionTask) else ("mask",):
                if (task.name, role) not in roles:
                    raise ArtifactError(
                        f"{where}: outputs: task '{task.name}' has no output of role '{role}'; {REBUILD}"
                    )
        if self.uses_im_hw != any(isinstance(task, DetectionTask) for task in self.tasks):
            raise ArtifactError(f"{where}: uses_im_hw must be true exactly when a task detects; {REBUILD}")

    def save(self, path: Path) -> None:
        """Writes the JSON to `path` in one step: a reader sees the old file or the new one, never half of one."""
        write_atomically(path, (json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Reads and checks the JSON at `path`. ArtifactError names the file, the key and the cure."""
        data = read_manifest(path)
        if isinstance(data, dict) and data.get("kind") == FOREIGN:
            raise ArtifactError(f"{path}: describes a foreign model; load it with runtime.tensor_model.TensorModel")
        return cls.from_json(data, str(path))


def read_manifest(path: Path) -> Any:
    """The JSON of a manifest. ArtifactError names the file and the cure."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file; a compiled model is two files, the .so and the .json beside it: "
            f"copy both, or {REBUILD}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); {REBUILD}") from None
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: not JSON ({error}); the file is damaged: copy it again, or {REBUILD}") from None


def by_call(layers: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """A manifest's layers, those of one kernel call together, in the order of execution."""
    return [list(together) for _, together in groupby(layers, key=itemgetter("call"))]


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_path(library: Path) -> Path:
    """Where the manifest of the compiled model `library` lies."""
    return library.with_suffix(".json")


def load_artifact(library: str | os.PathLike[str]) -> Manifest:
    """Checks the `.so` at `library` against the manifest beside it; returns the manifest. No code of the `.so` runs.

    ArtifactError: a file is missing, the `.so` is no shared library, the manifest is damaged, of another version, or
    belongs to another `.so` (its hash differs).
    """
    path = check_library(library)
    manifest = Manifest.load(manifest_path(path))
    check_hash(path, manifest.library_sha256)
    return manifest


def check_library(library: str | os.PathLike[str]) -> Path:
    """The path of a shared library. ArtifactError where there is none."""
    path = Path(library)
    if not path.exists():
        raise ArtifactError(f"{path}: no such file; give the .so that `python -m compile.build` wrote")
    if not path.is_file():
        raise ArtifactError(f"{path}: not a file; give the .so itself, for example RUN/int-inference-export-last.so")
    if path.suffix != ".so":
        raise ArtifactError(f"{path}: not a compiled model; give the .so that `python -m compile.build` wrote")
    with path.open("rb") as file:
        if file.read(len(ELF_MAGIC)) != ELF_MAGIC:
            raise ArtifactError(f"{path}: not a compiled model (no shared library); copy the .so again, or {REBUILD}")
    return path


def check_hash(path: Path, sha256: str) -> None:
    """ArtifactError where the library is not the one that its manifest was written for."""
    if file_sha256(path) != sha256:
        raise ArtifactError(
            f"{path}: not the library its manifest {manifest_path(path).name} was written for (sha256 differs); "
            f"the two files come from different builds, or one is damaged: copy both again, or {REBUILD}"
        )


__all__ = [
    "FOREIGN",
    "SCHEMA_VERSION",
    "DetectionTask",
    "InputGeometry",
    "Manifest",
    "Output",
    "SegmentationTask",
    "by_call",
    "check_hash",
    "check_library",
    "file_sha256",
    "load_artifact",
    "manifest_path",
    "read_manifest",
]
