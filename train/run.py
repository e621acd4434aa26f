"""The folder of a run: names of its files, and whether a step may start, continue or is finished there."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from configs.schema import PREFIXES, Config
from train.checkpoint import Checkpoint, load_checkpoint
from train.errors import CheckpointError, TrainError

State = Literal["fresh", "continue", "finished"]
DERIVED = ("calibrated", "verify.")  # what later commands make of a step's files; stale once a step starts again


@dataclass(frozen=True)
class Run:
    """The files of a run in `folder`."""

    folder: Path

    def init(self, step: int) -> Path:
        """Checkpoint at the start of the step."""
        return self.folder / f"{PREFIXES[step]}-init.params"

    def epoch(self, step: int, epoch: int) -> Path:
        """Checkpoint after an epoch, from 1."""
        return self.folder / f"{PREFIXES[step]}-{epoch:04d}.params"

    def resume(self, step: int) -> Path:
        """Checkpoint between epochs, overwritten by the next one."""
        return self.folder / f"{PREFIXES[step]}-resume.params"

    def last(self, step: int) -> Path:
        """Checkpoint of the trained step."""
        return self.folder / f"{PREFIXES[step]}-last-0000.params"

    def export(self, step: int) -> Path:
        """ONNX of the trained step."""
        return self.folder / f"{PREFIXES[step]}-export-last.onnx"

    def resumable(self, step: int) -> Iterator[Path]:
        """The checkpoints that the step can continue from."""
        for path in sorted(self.folder.glob(f"{PREFIXES[step]}-*.params")):
            if path in (self.init(step), self.resume(step)) or path.stem.removeprefix(PREFIXES[step])[1:].isdigit():
                yield path

    def newest(self, step: int) -> Checkpoint | None:
        """The furthest of them, each verified: a damaged one is an error, never passed over in silence."""
        found = [load_checkpoint(path) for path in self.resumable(step)]
        return max(found, key=lambda checkpoint: int(checkpoint.progress["iteration"]), default=None)

    def clear(self, step: int) -> None:
        """Removes the files of this step and of those after it, and what was built from them."""
        for path in list(self.folder.glob("*")):
            if path.is_file() and path.name.startswith((*(f"{prefix}-" for prefix in PREFIXES[step:]), *DERIVED)):
                path.unlink()


def identity(config: Config, *, pipeline_test: bool, seed: int) -> dict[str, Any]:
    """What a step's checkpoints must share to be continued: the config's content, the seed, whether it is a test."""
    content = json.loads(config.resolved())
    content.pop("file")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"config": digest, "pipeline_test": pipeline_test, "seed": seed}


def enter(run: Run, step: int, mine: dict[str, Any], *, resume: bool) -> tuple[State, Checkpoint | None]:
    """What to do with `step` in this folder, and the checkpoint to continue from.

    Without `resume` a step starts fresh, but never over a training that is no pipeline test: TrainError.
    """
    last = run.last(step)
    present = load_checkpoint(last) if last.is_file() else run.newest(step)
    if present is None:
        return "fresh", None
    theirs = present.progress["identity"]
    if not resume:
        if not theirs["pipeline_test"]:
            state = "finished" if last.is_file() else "begun"
            raise TrainError(
                f"{run.folder}: step {step} is {state} here; continue with --resume, give another folder with --out, "
                f"or delete {PREFIXES[step]}-*"
            )
        return "fresh", None
    for key, what in (("pipeline_test", "--pipeline-test"), ("seed", "--seed"), ("config", "config")):
        if theirs[key] != mine[key]:
            raise TrainError(
                f"{run.folder}: step {step} was begun with another {what}; --resume needs the same one "
                "(or start the step again without --resume in another folder, --out)"
            )
    return ("finished", present) if last.is_file() else ("continue", present)


def previous_checkpoint(run: Run, step: int) -> Checkpoint | None:
    """The last checkpoint of the step before `step`; None for step 0."""
    if step == 0:
        return None
    path = run.last(step - 1)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; step {step} starts from it: train --step {step - 1} with the same --out first"
        )
    return load_checkpoint(path)
