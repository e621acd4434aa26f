"""Sums over the processes of a distributed training; where there is one process only, what they are given."""

from typing import Any

import torch
from torch import Tensor, distributed


def count() -> int:
    """Processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def total(value: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow: each process gets those of all of them."""
    if count() == 1:
        return value
    summed: Tensor = _Sum.apply(value)
    return summed


@torch.no_grad()
def mean(value: Tensor) -> Tensor:
    """The mean over all processes, without gradients."""
    return total(value.detach().clone()) / count()


@torch.no_grad()
def greatest(value: Tensor) -> Tensor:
    """The greatest of all processes' values, element by element."""
    if count() > 1:
        value = value.detach().clone()
        distributed.all_reduce(value, distributed.ReduceOp.MAX)
    return value


class _Sum(torch.autograd.Function):
    """Every process's output depends on every process's input, so gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        result = value.contiguous().clone()
        distributed.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        result = gradients[0].contiguous().clone()
        distributed.all_reduce(result)
        return result
