"""Packed weights, read as a kernel reads them, are the convolution: for any groups, channels and kernel size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile.kernels.conv import tile_of
from compile.kernels.instructions import STEP
from compile.kernels.packing import BLOCK, Window, pack_channels, pack_weight

Array = np.ndarray


@st.composite
def windows(draw: st.DrawFn) -> Window:
    groups = draw(st.integers(1, 8))
    channels_in, channels_out = (groups * draw(st.integers(1, 24)) for _ in range(2))
    return Window(draw(st.sampled_from([1, 2, 3, 5])), 1, 0, groups, channels_in, channels_out)


def direct(patch: Array, weight: Array, window: Window) -> Array:
    """The sums for one window of the input (K, K, C), by the definition."""
    per_group = window.channels_out // window.groups
    inputs = np.split(patch.astype(np.int64), window.groups, axis=2)
    return np.array([(inputs[channel // per_group] * weight[channel]).sum() for channel in range(window.channels_out)])


def as_read(patch: Array, packed: Array, window: Window) -> Array:
    """The same by the steps of a kernel: four bytes of a row of the input against the lanes of a block."""
    sums = np.zeros(window.channels_out, np.int64)
    for block, channels in enumerate(window.channels_of_block):
        lanes = np.zeros(BLOCK, np.int64)
        for row, run, step in np.ndindex(window.kernel, window.runs, window.steps):
            first = run * window.channels_in + window.first_in(block)
            weights = packed[block, row, run, step].reshape(BLOCK, STEP).astype(np.int64)
            for lane in range(BLOCK):
                group = window.group_of(lane) * window.run if window.apart else 0
                start = first + group + window.start_of(step)
                found = patch[row].reshape(-1)[start : start + STEP].astype(np.int64)
                lanes[lane] += weights[lane, : len(found)] @ found
                assert len(found) == min(STEP, window.run), "a step reads beyond its run"
        sums[channels[channels >= 0]] = lanes[channels >= 0]
    return sums


@given(windows(), st.integers(0, 2**32 - 1))
def test_every_window(window: Window, seed: int) -> None:
    rng = np.random.default_rng(seed)
    per_group = window.channels_in // window.groups
    weight = rng.integers(-127, 128, (window.channels_out, window.kernel, window.kernel, per_group)).astype(np.int8)
    patch = rng.integers(0, 256, (window.kernel, window.kernel, window.channels_in)).astype(np.uint8)
    assert np.array_equal(as_read(patch, pack_weight(weight, window), window), direct(patch, weight, window))


@given(windows())
def test_blocks_hold_every_channel_once(window: Window) -> None:
    channels = window.channels_of_block
    assert sorted(channels[channels >= 0].tolist()) == list(range(window.channels_out))
    for first, count, filled in window.alike():
        for block in range(first, first + count):
            assert channels[block, :filled].tolist() == [window.first_out(block) + lane for lane in range(filled)]
            assert (channels[block, filled:] == -1).all()
    packed = pack_channels(np.arange(1, window.channels_out + 1), window)
    assert np.array_equal(packed, np.maximum(channels.ravel() + 1, 0))


def test_what_is_read_needs_no_padding_where_it_is_four_bytes() -> None:
    assert (Window(3, 1, 1, 8, 64, 128).steps, Window(3, 1, 1, 8, 64, 128).runs) == (2, 3)  # 8 channels to a group
    assert (Window(3, 2, 1, 1, 3, 16).steps, Window(3, 2, 1, 1, 3, 16).runs) == (3, 1)  # nine bytes in a row


def test_groups_that_share_a_block_read_their_own_four_bytes_each() -> None:
    assert Window(3, 2, 1, 2, 16, 16).apart
    assert Window(3, 2, 1, 2, 16, 16).steps == 2
    assert not Window(3, 1, 1, 4, 12, 16).apart  # three channels to a group


@pytest.mark.parametrize(("width", "tile"), [(480, 6), (240, 6), (15, 5), (4, 4), (143, 6), (1, 1)])
def test_tiles(width: int, tile: int) -> None:
    assert tile_of(width, 6) == tile
