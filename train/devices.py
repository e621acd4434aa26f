"""`--ctx` to devices: "cpu", once for each process, or numbers of GPUs, through lightning-fabric."""

import os
import re
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from runtime.processor import processor_flags
from train.errors import TrainError

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # processors without any of them take ten times as long, not half


def make_fabric(ctx: str, *, bfloat16: bool, resting: bool = False) -> Fabric:
    """The Fabric for `ctx`, with a process for each device. `bfloat16` runs the forward pass in mixed precision;
    `resting`: there may be trained parameters that an iteration does not use.

    Under torchrun, which starts the processes itself, `ctx` names the devices of this machine. TrainError if it is
    neither "cpu" (or "cpu,cpu", and so on) nor GPUs that are there.
    """
    precision = "bf16-mixed" if bfloat16 else "32-true"
    if re.fullmatch(r"cpu(,cpu)*", ctx):
        return _fabric("cpu", _started_by_torchrun() or ctx.count("cpu"), precision, resting=resting)
    if not re.fullmatch(r"\d+(,\d+)*", ctx):
        raise TrainError(f"--ctx {ctx}: give cpu, cpu,cpu for two processes, or numbers of GPUs such as 0 or 0,1")
    devices = [int(number) for number in ctx.split(",")]
    count = torch.cuda.device_count()
    absent = [number for number in devices if number >= count]
    if absent or len(set(devices)) < len(devices):
        there = f"GPUs 0 to {count - 1}" if count else "no GPU"
        raise TrainError(f"--ctx {ctx}: this machine has {there}, and each is named once; use --ctx cpu or others")
    return _fabric("cuda", devices, precision, resting=resting)


def has_bfloat16(ctx: str) -> bool:
    """Whether the devices of `ctx` multiply in bfloat16 themselves."""
    return torch.cuda.is_bf16_supported() if not ctx.startswith("cpu") else bool(processor_flags() & BFLOAT16_FLAGS)


def _fabric(accelerator: str, devices: int | list[int], precision: Any, *, resting: bool) -> Fabric:
    """One process for each device, of all machines that torchrun has started some on."""
    here = devices if isinstance(devices, int) else len(devices)
    machines = int(os.environ.get("WORLD_SIZE", here)) // here if _started_by_torchrun() else 1
    # all processes keep the same buffers by themselves: statistics and shifts are of all of them
    alone = here * machines == 1
    strategy: Any = "auto" if alone else DDPStrategy(forward_sync_buffers=False, find_unused_parameters=resting)
    return Fabric(accelerator=accelerator, devices=devices, num_nodes=machines, strategy=strategy, precision=precision)


def _started_by_torchrun() -> int:
    """How many processes torchrun has started on this machine, 0 if it has not."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0
