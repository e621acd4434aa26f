"""Checkpoints: safetensors files with a digest, written in one step, loaded without executing code.

One file holds the model's tensors under their dotted names, and for a resumable checkpoint the state of optimizer
and random generators under `training/…`. All that is no tensor lies as JSON in the header's single metadata
key: safetensors keeps several keys in no fixed order, and the same state shall give the same bytes.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from runtime.files import write_atomically
from train.errors import CheckpointError

FORMAT_VERSION = 1
METADATA_KEY = "bitroad"
TRAINING = "training/"
CURE = "delete it and continue from an older one with --resume, or train this step again"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    `model`: tensors by dotted name. `progress`: JSON-able facts (step, epoch, iteration, absorbed units …).
    `training`: nested dicts, lists, tuples, numbers and tensors, empty where the file cannot be resumed from.
    """

    model: dict[str, torch.Tensor]
    progress: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes `checkpoint` to `path`: a reader (or a power cut) sees the old file or the whole new one."""
    clash = [name for name in checkpoint.model if name.startswith(TRAINING)]
    if clash:
        raise CheckpointError(f"{path}: the model has a parameter '{clash[0]}'; names under '{TRAINING}' are reserved")
    tensors = {name: plain(tensor) for name, tensor in checkpoint.model.items()}
    state = _pack(checkpoint.training, TRAINING.rstrip("/"), tensors)
    facts = {"version": FORMAT_VERSION, "progress": checkpoint.progress, "training": state}
    header = {"facts": facts, "sha256": digest(tensors, facts)}
    write_atomically(path, save(tensors, metadata={METADATA_KEY: json.dumps(header)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads and verifies `path`, tensors on the CPU. CheckpointError names the file and the cure."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train the step that writes it first (or check --out)")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or truncated checkpoint ({error}); {CURE}") from None
    try:
        header = json.loads(metadata[METADATA_KEY])
        facts, expected = header["facts"], header["sha256"]
        version = facts["version"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path}: not a checkpoint of this program (no valid header); {CURE}") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format version {version}, this program reads {FORMAT_VERSION}; {CURE}")
    if digest(tensors, facts) != expected:
        raise CheckpointError(f"{path}: corrupted checkpoint (its sha256 does not fit its content); {CURE}")
    model = {name: tensor for name, tensor in tensors.items() if not name.startswith(TRAINING)}
    return Checkpoint(model, facts["progress"], _unpack(facts["training"], tensors))


def digest(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> str:
    """sha256 over names, types, shapes and bytes of all tensors, and over the facts."""
    result = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        result.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return result.hexdigest()


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as safetensors takes it: detached, on the CPU, contiguous and sharing memory with no other."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def random_state() -> dict[str, Any]:
    """State of every global random generator that training may draw from."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def seed_random_state(seed: int) -> None:
    """Begins all of them anew: two runs of one seed have the same state, too."""
    torch.manual_seed(seed % 2**63)  # a seed may be any number, torch's have 64 bits
    np.random.seed(seed % 2**32)
    random.seed(seed)


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON form of `value`; its tensors go into `tensors` under names that begin with `name`."""
    if isinstance(value, torch.Tensor):
        tensors[name] = plain(value)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: {type(value).__name__} cannot be stored in a checkpoint")


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Inverse of `_pack`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {key: _unpack(item, tensors) for key, item in content}
    items: Iterator[Any] = (_unpack(item, tensors) for item in content)
    return list(items) if kind == "list" else tuple(items)
