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
COMPARED = {  # keys of `identity`, and what a user knows them by
    "pipeline_test": "--pipeline-test",
    "seed": "--seed",
    "config": "config",
    "processes": "number of processes (--ctx)",
    "init": "--init",
}
DERIVED = ("calibrat", "verify.")  # what later commands make of a step's files; stale once a step starts again


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

    def floating(self, step: int) -> Path:
        """Checkpoint before the first iteration that is quantized, after a `quant_delay`."""
        return self.folder / f"{PREFIXES[step]}-float.params"

    def last(self, step: int) -> Path:
        """Checkpoint of the trained step."""
        return self.folder / f"{PREFIXES[step]}-last-0000.params"

    def export(self, step: int) -> Path:
        """ONNX of the trained step."""
        return self.folder / f"{PREFIXES[step]}-export-last.onnx"

    def mosaic(self, step: int) -> Path:
        """Validation pictures with labels beside the trained step's predictions."""
        return self.folder / f"{PREFIXES[step]}-validation.jpg"

    def resumable(self, step: int) -> Iterator[Path]:
        """The checkpoints that the step can continue from."""
        for path in sorted(self.folder.glob(f"{PREFIXES[step]}-*.params")):
            named = (self.init(step), self.floating(step), self.resume(step))
            if path in named or path.stem.removeprefix(PREFIXES[step])[1:].isdigit():
                yield path

    def newest(self, step: int) -> Checkpoint | None:
        """The furthest of them, each verified: a damaged one is an error, never passed over in silence."""
        found = [load_checkpoint(path) for path in self.resumable(step)]
        return max(found, key=lambda checkpoint: int(checkpoint.progress["iteration"]), default=None)

    def present(self, step: int) -> Checkpoint | None:
        """What there is of the step: its last checkpoint, or the newest one while it is unfinished."""
        return load_checkpoint(self.last(step)) if self.last(step).is_file() else self.newest(step)

    def sweep(self, step: int) -> None:
        """Removes the halves of files that a kill within a write left behind."""
        for path in self.folder.glob(f".{PREFIXES[step]}-*.part"):
            path.unlink()

    def clear(self, step: int) -> None:
        """Removes the files of this step and of those after it, and what was built from them."""
        for path in list(self.folder.glob("*")):
            if path.is_file() and path.name.startswith((*(f"{prefix}-" for prefix in PREFIXES[step:]), *DERIVED)):
                path.unlink()


def identity(
    config: Config, *, pipeline_test: bool, seed: int, processes: int, init: Path | None = None
) -> dict[str, Any]:
    """What a step's checkpoints must share to be continued: the config's content, the seed, whether it is a test, how
    many processes train together, the content of the file `init` whose weights it began with.

    Of the content not what decides on speed and output only, so that a run short of memory can go on with less.
    """
    content = json.loads(config.resolved())
    del content["file"], content["env"]["log_every"]
    for key in ("load_threads", "threads", "default_ctx"):
        del content["common"][key]
    for task in content["tasks"]:
        del task["post_processing"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    begun_with = None if init is None else hashlib.sha256(init.read_bytes()).hexdigest()
    return {
        "config": digest,
        "pipeline_test": pipeline_test,
        "seed": seed,
        "processes": processes,
        "init": begun_with,
    }


def enter(run: Run, step: int, mine: dict[str, Any], *, resume: bool) -> tuple[State, Checkpoint | None]:
    """What to do with `step` in this folder, and the checkpoint to continue from.

    Without `resume` a step starts fresh, but never over a training that is no pipeline test: TrainError.
    """
    last, present = run.last(step), run.present(step)
    if present is None or (not resume and present.progress["identity"]["pipeline_test"]):
        _spare_later_steps(run, step)
        return "fresh", None
    theirs = present.progress["identity"]
    if not resume:
        state = "finished" if last.is_file() else "begun"
        raise TrainError(
            f"{run.folder}: step {step} is {state} here; continue with --resume, give another folder with --out, "
            f"or delete {', '.join(f'{prefix}-*' for prefix in PREFIXES[step:3])}"
        )
    for key, what in COMPARED.items():
        if theirs.get(key) != mine.get(key):
            raise TrainError(
                f"{run.folder}: step {step} was begun with another {what}; --resume needs the same one "
                "(or start the step again without --resume in another folder, --out)"
            )
    return ("finished", present) if last.is_file() else ("continue", present)


def _spare_later_steps(run: Run, step: int) -> None:
    """A step that starts afresh takes the place of those after it: TrainError if one of them is no pipeline test."""
    for later in range(step + 1, 3):
        present = run.present(later)
        if present is not None and not present.progress["identity"]["pipeline_test"]:
            raise TrainError(
                f"{run.folder}: holds a training of step {later}, which starting step {step} would remove; give "
                f"another folder with --out, or delete {PREFIXES[later]}-*"
            )


def previous_checkpoint(run: Run, step: int, *, pipeline_test: bool) -> Checkpoint | None:
    """The last checkpoint of the step before `step`; None for step 0. A training does not start from a pipeline test:
    TrainError.
    """
    if step == 0:
        return None
    path = run.last(step - 1)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; step {step} starts from it: train --step {step - 1} with the same --out first"
        )
    checkpoint = load_checkpoint(path)
    if checkpoint.progress["identity"]["pipeline_test"] and not pipeline_test:
        raise TrainError(
            f"{path}: comes from a pipeline test, a few iterations only; train --step {step - 1} without "
            "--pipeline-test first, or this step with it"
        )
    return checkpoint
