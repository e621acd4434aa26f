"""The network of all tasks of a config: the models of the tasks, their shared part computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from configs.schema import Config
from quant.fake import QuantConv2d, QuantTensor
from train.models.sharing import share
from train.models.task import TaskModel


class MultiTaskNetwork(nn.Module):
    """Children: `image`, `backbone`, `neck`, and one head per task under the task's name."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        models = {task.name: TaskModel(config, task) for task in config.tasks}
        share(models)
        for model in models.values():
            for name, module in model.named_children():
                self.add_module(name, module)
        for name, module in self.named_modules():
            if isinstance(module, QuantConv2d):
                module.name = name
        # not registered as children: their modules are this network's already
        object.__setattr__(self, "models", models)

    models: dict[str, TaskModel]

    def forward(self, image: Tensor, wanted: Mapping[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
        """Outputs by their exported names, (N, C, h, w) float32, of all tasks for all pictures; or of the tasks that
        `wanted` names, each for these pictures of the N in their order.

        image: (N, 3, H, W) float32, (p - 128) / 128 of the pixels p.
        """
        maps = next(iter(self.models.values())).maps(image)
        outputs: dict[str, Tensor] = {}
        for name, model in self.models.items():
            if wanted is None:
                outputs.update(model.outputs(maps))
            elif name in wanted:
                outputs.update(model.outputs(_select(maps, wanted[name], len(image))))
        return outputs

    def output_shifts(self) -> dict[str, int]:
        """Shift of every output, by its exported name."""
        return {name: shift for model in self.models.values() for name, shift in model.output_shifts().items()}


def _select(maps: Mapping[int, QuantTensor], pictures: Sequence[int], count: int) -> Mapping[int, QuantTensor]:
    """The maps of some of the `count` pictures."""
    if len(pictures) == count:
        return maps
    rows = torch.tensor(pictures, device=next(iter(maps.values())).value.device)
    return {stride: replace(entry, value=entry.value.index_select(0, rows)) for stride, entry in maps.items()}
