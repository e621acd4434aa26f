"""Parameters of one name are one parameter; a task's own lie under its name."""

from pathlib import Path

import pytest
import torch
from torch import nn

from configs import load
from train.errors import TrainError
from train.models.multitask import MultiTaskNetwork
from train.models.sharing import get_unshared_and_shared_params, share
from train.models.task import TaskModel

NAMES = ("det_person", "seg_lane")


@pytest.fixture
def models(repository: Path) -> dict[str, TaskModel]:
    config = load(repository / "configs/4pe_resize/multitask.py")
    return {name: TaskModel(config, config.task(name)) for name in NAMES}


def test_backbone_and_neck_are_shared_and_heads_are_not(models: dict[str, TaskModel]) -> None:
    parameters = get_unshared_and_shared_params(models)
    assert {name.split(".")[0] for name in parameters.shared} == {"image", "backbone", "neck"}
    for name in NAMES:
        assert {key.split(".")[0] for key in parameters.unshared[name]} == {name}


def test_a_task_alone_has_the_same_shared_part(models: dict[str, TaskModel]) -> None:
    together = get_unshared_and_shared_params(models)
    alone = get_unshared_and_shared_params({"seg_lane": models["seg_lane"]})
    assert alone.shared.keys() == together.shared.keys()


def test_shared_modules_are_the_same_objects(models: dict[str, TaskModel]) -> None:
    assert models["seg_lane"].backbone is not models["det_person"].backbone
    share(models)
    assert models["seg_lane"].backbone is models["det_person"].backbone
    assert models["seg_lane"].neck is models["det_person"].neck


def test_a_task_model_computes_what_the_network_computes(repository: Path) -> None:
    torch.manual_seed(0)
    network = MultiTaskNetwork(load(repository / "configs/4pe_resize/multitask.py")).eval()
    image = torch.randint(-128, 128, (1, 3, 64, 64)) / 128
    with torch.no_grad():
        whole, one = network(image), network.models["seg_lane"](image)
    assert torch.equal(whole["seg_lane.logits"], one["seg_lane.logits"])


class Part(nn.Module):
    def __init__(self, task: str, size: int, extra: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Linear(size, 2)
        self.add_module(task, nn.Linear(2, 1))
        if extra:
            self.aside = nn.Linear(1, 1)


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(TrainError, match=r"backbone\.weight has shape \(2, 3\) in a and \(2, 4\) in b"):
        get_unshared_and_shared_params({"a": Part("a", 3), "b": Part("b", 4)})


def test_a_part_of_one_task_alone_is_named() -> None:
    with pytest.raises(TrainError, match=r"aside\.bias is only in b"):
        get_unshared_and_shared_params({"a": Part("a", 3), "b": Part("b", 3, extra=True)})
