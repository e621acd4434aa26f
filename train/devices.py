"""`--ctx` to devices: "cpu" or numbers of GPUs, through lightning-fabric."""

import re

import torch
from lightning_fabric import Fabric

from train.errors import TrainError


def make_fabric(ctx: str, *, bfloat16: bool) -> Fabric:
    """The Fabric for `ctx`; with several GPUs one process each. `bfloat16` runs the forward pass in mixed precision.

    TrainError if `ctx` is neither "cpu" nor GPUs that are there.
    """
    precision = "bf16-mixed" if bfloat16 else "32-true"
    if ctx == "cpu":
        return Fabric(accelerator="cpu", devices=1, precision=precision)
    if not re.fullmatch(r"\d+(,\d+)*", ctx):
        raise TrainError(f"--ctx {ctx}: give cpu, or numbers of GPUs such as 0 or 0,1")
    devices = [int(number) for number in ctx.split(",")]
    count = torch.cuda.device_count()
    absent = [number for number in devices if number >= count]
    if absent or len(set(devices)) < len(devices):
        there = f"GPUs 0 to {count - 1}" if count else "no GPU"
        raise TrainError(f"--ctx {ctx}: this machine has {there}, and each is named once; use --ctx cpu or others")
    return Fabric(accelerator="cuda", devices=devices, precision=precision)
