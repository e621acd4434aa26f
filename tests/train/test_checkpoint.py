"""Checkpoints survive the round trip bit by bit, and every kind of damage is named."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    seed_random_state,
)
from train.errors import CheckpointError


def example() -> Checkpoint:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    model = {
        "a.conv.weight": weight,
        "a.shift": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "b": torch.ones(4).half(),
    }
    return Checkpoint(model, {"step": 1, "epoch": 2}, {"optimizer": optimizer.state_dict(), "random": random_state()})


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    saved = example()
    path = tmp_path / "with-bn-0001.params"
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert loaded.progress == saved.progress
    assert loaded.model.keys() == saved.model.keys()
    for name, tensor in saved.model.items():
        assert loaded.model[name].dtype == tensor.dtype
        assert torch.equal(loaded.model[name], tensor)
    moment = saved.training["optimizer"]["state"][0]["exp_avg_sq"]
    assert torch.equal(loaded.training["optimizer"]["state"][0]["exp_avg_sq"], moment)
    assert loaded.training["optimizer"]["param_groups"] == saved.training["optimizer"]["param_groups"]


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = example()
    save_checkpoint(tmp_path / "one", checkpoint)
    save_checkpoint(tmp_path / "two", checkpoint)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one", "two"], "temporary files are left"


def test_random_generators_continue_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "x.params"
    save_checkpoint(path, Checkpoint({}, {}, {"random": random_state()}))
    expected = torch.rand(3), np.random.rand(3), random.random()
    restore_random_state(load_checkpoint(path).training["random"])
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]


@pytest.mark.parametrize("position", [0.0, 0.02, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_recognized(tmp_path: Path, position: float) -> None:
    path = tmp_path / "with-bn-0001.params"
    save_checkpoint(path, example())
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"with-bn-0001\.params.*--resume"):
        load_checkpoint(path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.9999])
def test_a_truncated_file_is_recognized(tmp_path: Path, part: float) -> None:
    path = tmp_path / "with-bn-0001.params"
    save_checkpoint(path, example())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match=r"with-bn-0001\.params"):
        load_checkpoint(path)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_without_being_run(tmp_path: Path, legacy: bool) -> None:
    path, trace = tmp_path / "with-bn-0001.params", tmp_path / "executed"
    torch.save({"a": torch.zeros(2), "trap": Trap(trace)}, path, _use_new_zipfile_serialization=not legacy)
    torch.load(path, weights_only=False)
    assert trace.exists(), "the trap works"
    trace.unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)
    assert not trace.exists()


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "with-bn-last-0000.params")


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="training/x"):
        save_checkpoint(tmp_path / "x", Checkpoint({}, {}, {"x": object()}))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 + 1, 2**80])
def test_any_seed_gives_the_same_numbers_again(seed: int) -> None:
    drawn = []
    for _ in range(2):
        seed_random_state(seed)
        drawn.append((torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()))
    assert drawn[0] == drawn[1]
