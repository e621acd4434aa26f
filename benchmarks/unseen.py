"""Embedded scenes that no step of any run has seen."""

from configs import Config
from configs.task import SceneSource, TaskData

UNSEEN = SceneSource(kind="scenes", seed=5_000_000, count=200)


def on_scenes(config: Config, scenes: SceneSource) -> Config:
    """The config with the scenes in place of its validation data."""
    tasks = [task.model_copy(update={"data": TaskData(train=task.data.train, val=(scenes,))}) for task in config.tasks]
    return config.model_copy(update={"tasks": tuple(tasks)})
