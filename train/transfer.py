"""The weights of another run as the beginning of step 0: those that have the same name in both networks."""

from pathlib import Path

from torch import nn

from train.checkpoint import load_checkpoint
from train.errors import CheckpointError
from train.steps import forget_ranges, unfreeze

SHARED = ("backbone.", "neck.")


def take_weights(network: nn.Module, path: Path) -> str:
    """Loads them into `network`; heads that only one of the two has stay as they are. Returns a line for the user.

    CheckpointError if batch norms are absorbed there, or a shared name is missing or has another shape.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.progress["absorbed"]:
        raise CheckpointError(f"{path}: its batch norms are absorbed; give a checkpoint of step 0, with-bn-*.params")
    state = network.state_dict()
    taken = {name: tensor for name, tensor in checkpoint.model.items() if name in state}
    for name in (*(name for name in state if name.startswith(SHARED)), *taken):
        found = checkpoint.model.get(name)
        if found is None or found.shape != state[name].shape:
            theirs = "missing" if found is None else f"{tuple(found.shape)}"
            raise CheckpointError(
                f"{path}: {name} is {theirs} there and {tuple(state[name].shape)} in the config's network; give a "
                "checkpoint of the same network, or leave out --init"
            )
    network.load_state_dict(taken, strict=False)
    unfreeze(network)
    forget_ranges(network)
    return f"begins with {len(taken)} tensors of {path}; {len(state) - len(taken)} are new"
