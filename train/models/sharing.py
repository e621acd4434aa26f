"""Parameters of the same name in the models of several tasks are one parameter: the shared part is trained once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from train.errors import TrainError


@dataclass(frozen=True)
class Parameters:
    """`shared`: by name. `unshared`: by task, then by name. Values are the first model's."""

    unshared: dict[str, dict[str, Tensor]]
    shared: dict[str, Tensor]


def get_unshared_and_shared_params(models: Mapping[str, nn.Module]) -> Parameters:
    """Parts the parameters and buffers of the tasks' models, by task name, into each task's own and the shared ones.

    A task's own lie under its name, `det_person.…`; every other name is shared. TrainError if a shared name means
    tensors of different shape in two tasks, or is missing in one.
    """
    unshared: dict[str, dict[str, Tensor]] = {}
    shared: dict[str, Tensor] = {}
    first: str | None = None
    for task, model in models.items():
        tensors: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        unshared[task] = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{task}.")}
        common = {name: tensor for name, tensor in tensors.items() if name not in unshared[task]}
        if first is None:
            first, shared = task, common
            continue
        _compare(first, shared, task, common)
    return Parameters(unshared, shared)


def share(models: Mapping[str, nn.Module]) -> None:
    """Makes all models use the first one's modules for what is shared."""
    get_unshared_and_shared_params(models)
    first = next(iter(models.values()))
    for task, model in models.items():
        for name, _ in list(model.named_children()):
            if name != task:
                setattr(model, name, getattr(first, name))


def _compare(first: str, shared: Mapping[str, Tensor], task: str, common: Mapping[str, Tensor]) -> None:
    for name in sorted(shared.keys() | common.keys()):
        ours, theirs = shared.get(name), common.get(name)
        if ours is None or theirs is None:
            raise TrainError(
                f"parameter {name} is only in {first if theirs is None else task}; a part of one task alone has to lie "
                "under the task's name"
            )
        if ours.shape != theirs.shape:
            raise TrainError(
                f"parameter {name} has shape {tuple(ours.shape)} in {first} and {tuple(theirs.shape)} in {task}; "
                "shared parts have to be built alike"
            )
