"""Embedded scenes that no step of any run has seen, and the way to a compiled model, verified on some of them."""

from pathlib import Path

from phases import Clock, command, train

from configs import Config
from configs.task import SceneSource, TaskData

UNSEEN = SceneSource(kind="scenes", seed=5_000_000, count=200)


def on_scenes(config: Config, scenes: SceneSource) -> Config:
    """The config with the scenes in place of its validation data."""
    tasks = [task.model_copy(update={"data": TaskData(train=task.data.train, val=(scenes,))}) for task in config.tasks]
    return config.model_copy(update={"tasks": tuple(tasks)})


def make(config: Path, run: Path, clock: Clock, scenes: SceneSource, *, count: int, pictures: Path) -> None:
    """Trains what is not trained yet, builds, and verifies on the first `count` scenes, drawn into `pictures`."""
    train(config, run, clock)
    command("compile.build", "--config", config, "--out", run)
    sizes = [f"{height}x{width}" for height, width in scenes.sizes]
    which = ("--count", count, "--seed", scenes.seed, "--source-hw", *sizes)
    command("train.data.generate", "--out", pictures, *which, "--only-images")
    command("compile.verify", "--config", config, "--out", run, "--images", pictures)
