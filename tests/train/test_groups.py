"""Tasks on different sources in one run: what a batch is made of, what each head is shown."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs import Config, load
from configs.task import SceneSource, TaskData
from train.data.dataset import Batch
from train.devices import make_fabric
from train.feed import Feed
from train.steps import prepare, targets_of

SIZE = (256, 512)
BOTH = SceneSource(kind="scenes", seed=1, count=8, sizes=(SIZE,), share=0.5)
LANES = SceneSource(kind="scenes", seed=50, count=3, sizes=(SIZE,), share=0.25)


@pytest.fixture(scope="module")
def config(tiny_config: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = load(tiny_config(tmp_path_factory.mktemp("groups")))
    sources = {"det_person": (BOTH,), "seg_lane": (BOTH, LANES)}
    tasks = tuple(
        task.model_copy(update={"data": TaskData(train=sources[task.name], val=(BOTH,))}) for task in config.tasks
    )
    return config.model_copy(update={"tasks": tasks})


@pytest.fixture(scope="module")
def batches(config: Config) -> list[Batch]:
    feed = Feed(config, 0, pipeline_test=False, seed=1, fabric=make_fabric("cpu", bfloat16=False))
    assert feed.iterations_per_epoch(4) == 4, "eight pictures, two at a time"
    (first, _) = list(feed.batches(4)(0, 2))
    return first


def test_every_group_has_its_share(batches: list[Batch]) -> None:
    assert [(batch.tasks, len(batch.pictures)) for batch in batches] == [
        (("det_person", "seg_lane"), 2),
        (("seg_lane",), 1),
    ]
    assert len(targets_of("det_person", batches)) == 2  # type: ignore[arg-type]
    masks = targets_of("seg_lane", batches)
    assert masks.labels.shape == (3, 128, 256)  # type: ignore[union-attr]


def test_a_head_is_shown_what_is_labelled_for_it(config: Config, batches: list[Batch]) -> None:
    """And gives for these pictures what it gives for them among all."""
    network = prepare(config, 0, start=None, before=None).network.network.eval()
    image = torch.cat([batch.images() for batch in batches])
    with torch.no_grad():
        whole, parts = network(image), network(image, {"det_person": [0, 1], "seg_lane": [0, 2]})
    assert torch.equal(parts["det_person.score_s8"], whole["det_person.score_s8"][:2])
    assert torch.equal(parts["seg_lane.logits"], whole["seg_lane.logits"][[0, 2]])


def test_losses_of_all_tasks(config: Config, batches: list[Batch]) -> None:
    network = prepare(config, 0, start=None, before=None).network
    losses = network(batches)
    assert set(losses) == {"det_person", "seg_lane"}
    sum(losses.values()).backward()
    without = [name for name, entry in network.named_parameters() if entry.grad is None]
    assert not without
