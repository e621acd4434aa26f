"""What a convolution reads under its kernel, and its weights in the order of reading.

Sixteen output channels make a block. Where a group has fewer, several groups share a block; where it has more, a block
holds channels of one group only. A block reads a run of input channels at every pixel under the kernel, in steps of
four bytes. If it reads all channels, a kernel row is one run over its pixels, so that three channels need no padding to
four. A run that is no multiple of four ends in a step that starts early, with zeros as weights for what was read.

Groups that share a block read their own channels each, if these are a multiple of four: then a step is four bytes to
each group. Else the block reads the channels of all of them, with zeros as weights between the groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from compile.kernels.builder import Index
from compile.kernels.instructions import STEP

BLOCK = 16


@dataclass(frozen=True)
class Window:
    """The part of the input that one output pixel depends on; the channels are those of all groups."""

    kernel: int
    stride: int
    padding: int
    groups: int
    channels_in: int
    channels_out: int

    @property
    def merged(self) -> int:
        """Groups that share a block."""
        return max(1, min(self.groups, BLOCK * self.groups // self.channels_out))

    @property
    def merged_out(self) -> int:
        """Output channels of groups that share blocks."""
        return self.merged * self.channels_out // self.groups

    @property
    def merged_in(self) -> int:
        """Input channels of groups that share blocks."""
        return self.merged * self.channels_in // self.groups

    @property
    def blocks_per_merge(self) -> int:
        """Blocks that read the same channels."""
        return -(-self.merged_out // BLOCK)

    @property
    def blocks(self) -> int:
        """Blocks in all."""
        return -(-self.groups // self.merged) * self.blocks_per_merge

    @property
    def reach(self) -> int:
        """Input channels that a block reads at a pixel."""
        return min(self.channels_in, max(STEP, self.merged_in))

    @property
    def apart(self) -> bool:
        """Whether groups that share a block read their own channels each."""
        return self.merged > 1 and self.groups % self.merged == 0 and self.channels_in // self.groups % STEP == 0

    @property
    def runs(self) -> int:
        """Runs to a kernel row."""
        return 1 if self.reach == self.channels_in and not self.apart else self.kernel

    @property
    def run(self) -> int:
        """Bytes of a run, to each group where they read apart."""
        return self.channels_in // self.groups if self.apart else self.reach * self.kernel // self.runs

    @property
    def steps(self) -> int:
        """Dot products of a run."""
        return -(-self.run // STEP)

    @property
    def channels_of_block(self) -> NDArray[np.intp]:
        """(blocks, BLOCK): the output channel in every lane, -1 where there is none."""
        lane = np.arange(self.blocks_per_merge * BLOCK)
        start = np.arange(0, self.channels_out, self.merged_out)[:, None]
        channel = start + lane
        there = (lane < self.merged_out) & (channel < self.channels_out)
        return np.where(there, channel, -1).reshape(self.blocks, BLOCK)

    def alike(self) -> Iterator[tuple[int, int, int]]:
        """First block, number of blocks and channels to a block, for every stretch of blocks with equally many."""
        counts = (self.channels_of_block >= 0).sum(axis=1)
        for channels, stretch in groupby(range(self.blocks), key=lambda block: int(counts[block])):
            blocks = list(stretch)
            yield blocks[0], len(blocks), channels

    def first_in(self, block: Index) -> Index:
        """First input channel that a block reads."""
        first = block // self.blocks_per_merge * self.merged_in
        return least(first, self.channels_in - self.reach)

    def first_out(self, block: Index) -> Index:
        """First output channel of a block."""
        return block // self.blocks_per_merge * self.merged_out + block % self.blocks_per_merge * BLOCK

    def group_of(self, lane: int) -> int:
        """Which of the groups that share a block a lane of it belongs to."""
        return min(lane * self.groups // self.channels_out, self.merged - 1)

    def start_of(self, step: Index) -> Index:
        """First byte of a step in its run."""
        return least(step * STEP, max(0, self.run - STEP))


def pack_channels(values: NDArray[np.generic], window: Window) -> NDArray[np.generic]:
    """One value per output channel (O,) -> (blocks · BLOCK,), 0 where there is no channel."""
    channels = window.channels_of_block.ravel()
    return np.where(channels < 0, 0, values[channels]).astype(values.dtype)


def pack_weight(weight: NDArray[np.int8], window: Window) -> NDArray[np.int8]:
    """int8 OHWI, input channels of one group -> (blocks, kernel, runs, steps, STEP · BLOCK), all lanes' four bytes."""
    apart = window.apart
    weight = weight if apart else spread_groups(weight, window)
    packed = np.zeros((window.blocks, window.kernel, window.runs, window.steps, BLOCK, STEP), np.int8)
    for block, channels in enumerate(window.channels_of_block):
        first = 0 if apart else window.first_in(block)
        seen = weight[channels][:, :, :, first : first + window.reach] * (channels >= 0)[:, None, None, None]
        runs = seen.reshape(BLOCK, window.kernel, window.runs, window.run)
        for step in range(window.steps):
            new = runs[..., step * STEP : (step + 1) * STEP].transpose(1, 2, 0, 3)
            early = step * STEP - window.start_of(step)  # bytes that were read before
            packed[block, :, :, step, :, early : early + new.shape[-1]] = new
    return packed.reshape(window.blocks, window.kernel, window.runs, window.steps, BLOCK * STEP)


def spread_groups(weight: NDArray[np.int8], window: Window) -> NDArray[np.int8]:
    """int8 OHWI of groups -> the same convolution without groups, zeros between."""
    group_in, group_out = window.channels_in // window.groups, window.channels_out // window.groups
    dense = np.zeros((*weight.shape[:3], window.channels_in), np.int8)
    for channel in range(window.channels_out):
        first = channel // group_out * group_in
        dense[channel, :, :, first : first + group_in] = weight[channel]
    return dense


def least(value: Index, limit: int) -> Index:
    """The smaller of the two, now or when the code runs."""
    return min(value, limit) if isinstance(value, int) else tirx.min(value, limit)
