"""`python -m train.data.anchors`: how well a config's anchors fit its training boxes, and ones that fit better."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from configs import Config, ConfigError, load
from configs.task import DetectionTask
from runtime.arguments import at_least
from train.data.dataset import labelled_groups
from train.data.errors import DataError
from train.data.transforms import min_max_size

DESCRIPTION = """Compare the anchors of every detection task with its training boxes, at the size that the network is
shown (without random scaling), at random places of the anchors' grids: the mean IoU of a box with its best anchor, and
the share of boxes that have one of at least 0.5. Prints anchors fitted to the boxes, in the form that a head takes."""
BEGINNINGS, ROUNDS = 8, 30
FIRST = 1.6  # a stride's boxes begin at this many strides (root of the area): a grid is too coarse for smaller ones
Sizes = npt.NDArray[np.float64]  # (n, 2): height, width


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.data.anchors", description=DESCRIPTION)
    parser.add_argument("--config", type=Path, required=True, metavar="C", help="its detection tasks and training data")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N pictures of every set")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="of the search's beginning (default: 0)"
    )
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
        sizes = box_sizes(config, options.limit)
        for task in config.tasks:
            if isinstance(task, DetectionTask):
                report(task, sizes[task.name], options.seed)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def box_sizes(config: Config, limit: int | None) -> dict[str, Sizes]:
    """Sizes of the training boxes that count, by detection task, in pixels of the network's input."""
    found: dict[str, list[Sizes]] = {task.name: [] for task in config.tasks if isinstance(task, DetectionTask)}
    for names, sources in labelled_groups(config, "train"):
        if not set(names) & set(found):
            continue
        for source in sources:
            numbers = range(min(len(source), limit or len(source)))
            for number in track(numbers, description=source.where, console=Console(stderr=True)):
                sample = source[number]
                hw = (sample.picture.shape[0], sample.picture.shape[1])
                shown = hw if config.common.resize_hw is None else min_max_size(hw, config.common.resize_hw)
                for name, boxes in sample.boxes.items():
                    corners = boxes.boxes[~boxes.ignore].astype(np.float64)
                    sides = corners[:, [3, 2]] - corners[:, [1, 0]]
                    found[name].append(sides * (np.array(shown) / np.array(hw)))
    return {name: np.concatenate([np.zeros((0, 2)), *parts]) for name, parts in found.items()}


def report(task: DetectionTask, sizes: Sizes, seed: int) -> None:
    """Prints how well the task's anchors fit, and better ones."""
    strides, count = task.head.strides, task.head.anchors_per_cell
    if not len(sizes):
        print(f"{task.name}: no boxes")
        return
    print(f"{task.name}: {len(sizes)} boxes, {count} anchors at each of the strides {strides}")
    fitted = fit(sizes, strides, [np.array(entry) for entry in task.head.anchors], seed)
    for name, anchors in (("the config's", task.head.anchors), ("fitted", fitted)):
        best = best_iou(sizes, strides, [np.array(entry) for entry in anchors], seed)
        share = 100 * (best >= 0.5).mean() if len(sizes) else 0.0
        print(
            f"  {name:12} mean IoU {best.mean() if len(sizes) else 0:.3f}, at least 0.5 for {share:.1f}% of the boxes"
        )
    print("  anchors = [")
    for stride, entry in zip(strides, fitted, strict=True):
        print(f"      [{', '.join(f'({h:.1f}, {w:.1f})' for h, w in entry)}],  # stride {stride}")
    print("  ]")


def fit(sizes: Sizes, strides: Sequence[int], known: Sequence[Sizes], seed: int) -> list[Sizes]:
    """As many anchors (h, w) for each stride as `known` has. Boxes belong to the coarsest stride that they are FIRST
    times as large as, smaller ones to the finest; a stride with too few of them keeps its anchors.
    """
    side = np.sqrt(sizes.prod(axis=1))
    owner = np.clip(np.searchsorted(FIRST * np.array(strides), side, side="right") - 1, 0, None)
    mine = [sizes[owner == number] for number in range(len(strides))]
    return [
        cluster(boxes, len(old), seed) if len(boxes) >= 5 * len(old) else old
        for boxes, old in zip(mine, known, strict=True)
    ]


def cluster(sizes: Sizes, count: int, seed: int) -> Sizes:
    """k-means with 1 - IoU for the distance (YOLO9000, arXiv 1612.08242, 2), the best of several beginnings; the
    smallest area first. Centres are means of logarithms, so that a few large boxes do not outweigh many small ones.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(BEGINNINGS):
        anchors = sizes[rng.choice(len(sizes), count, replace=False)]
        for _ in range(ROUNDS):
            owner = iou(sizes, anchors, np.zeros_like(sizes)).argmax(axis=1)
            for number in np.unique(owner):
                anchors[number] = np.exp(np.log(sizes[owner == number]).mean(axis=0))
        found.append(anchors[np.argsort(anchors.prod(axis=1))])
    return max(found, key=lambda anchors: float(iou(sizes, anchors, np.zeros_like(sizes)).max(axis=1).mean()))


def best_iou(sizes: Sizes, strides: Sequence[int], anchors: Sequence[Sizes], seed: int) -> npt.NDArray[np.float64]:
    """IoU (n,) of each box with the best anchor around it, its centre anywhere between those of the cells."""
    rng = np.random.default_rng(seed)
    parts = [
        iou(sizes, entry, rng.uniform(-stride / 2, stride / 2, sizes.shape)).max(axis=1)
        for stride, entry in zip(strides, anchors, strict=True)
    ]
    result: npt.NDArray[np.float64] = np.max(parts, axis=0)
    return result


def iou(sizes: Sizes, anchors: Sizes, offsets: Sizes) -> npt.NDArray[np.float64]:
    """IoU (n, m) of boxes (n, 2) and anchors (m, 2) whose centres are `offsets` (n, 2) apart."""
    small, both = np.minimum(sizes[:, None], anchors), (sizes[:, None] + anchors) / 2
    inter = np.clip(np.minimum(small, both - np.abs(offsets[:, None])), 0, None).prod(axis=2)
    result: npt.NDArray[np.float64] = inter / (sizes.prod(axis=1)[:, None] + anchors.prod(axis=1) - inter)
    return result


if __name__ == "__main__":
    sys.exit(main())
