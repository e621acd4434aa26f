"""`python -m train.data.generate`: embedded scenes as files, a data set in the project's format or pictures alone."""

import argparse
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import starmap
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import track

from runtime.arguments import at_least
from runtime.interruption import leave_to_the_parent
from train.data.classes import DETECTION_CLASSES
from train.data.errors import DataError
from train.data.folder_writer import FolderWriter, begin_data_set, refuse_data_set, write_png
from train.data.samples import Sample, TaskLabels
from train.data.scenes import SOURCE_SIZES, render_sample

MANY = 64  # scenes for which it pays to start further processes
DESCRIPTION = """Draw embedded road scenes: scene i has seed S + i and the i-th of the sizes in turn. Writes images/,
annotations.json and masks/TASK/ (docs/data.md), or with --only-images just the pictures into DIR."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.data.generate", description=DESCRIPTION)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--count", type=at_least(1), required=True, metavar="N", help="how many scenes")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="seed of the first scene (default: 0)")
    parser.add_argument(
        "--source-hw",
        nargs="+",
        type=_size,
        default=list(SOURCE_SIZES),
        metavar="HxW",
        help="sizes, e.g. 940x1824 (default: the four of the design)",
    )
    parser.add_argument("--only-images", action="store_true", help="pictures without labels")
    options = parser.parse_args(arguments)
    try:
        generate(options.out, options.count, options.seed, options.source_hw, only_images=options.only_images)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {options.out} is not complete", file=sys.stderr)
        return 130
    print(f"{options.count} scenes in {options.out}")
    return 0


def generate(out: Path, count: int, seed: int, sizes: Sequence[tuple[int, int]], *, only_images: bool = False) -> None:
    """Writes the scenes. DataError if `out` holds a data set already or cannot be written."""
    if only_images:
        refuse_data_set(out)
    else:
        begin_data_set(out)
    writer = FolderWriter(out, {task: TaskLabels(names) for task, names in DETECTION_CLASSES.items()})
    scenes = [(seed + index, sizes[index % len(sizes)]) for index in range(count)]
    samples = track(drawn(scenes), description="scenes", console=Console(stderr=True), total=count)
    for (number, _), sample in zip(scenes, samples, strict=True):
        if only_images:
            write_png(out / f"{stem_of(number)}.png", cv2.cvtColor(sample.picture, cv2.COLOR_RGB2BGR))
        else:
            writer.add(stem_of(number), sample)
    if not only_images:
        writer.close()


def drawn(scenes: Sequence[tuple[int, tuple[int, int]]]) -> Iterator[Sample]:
    """The scenes of these seeds and sizes in their order; many of them by a process for each processor."""
    if len(scenes) < MANY:
        yield from starmap(render_sample, scenes)
        return
    with multiprocessing.get_context("spawn").Pool(initializer=_leave_interrupts_to_the_parent) as pool:
        yield from pool.imap(_render, scenes)


def _render(scene: tuple[int, tuple[int, int]]) -> Sample:
    return render_sample(*scene)


def _leave_interrupts_to_the_parent() -> None:
    leave_to_the_parent(signal.SIGINT)
    cv2.setNumThreads(1)  # every processor has its process


def stem_of(seed: int) -> str:
    """The name of a scene's files."""
    return f"scene_{seed:07d}"


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text}: a size is height x width, e.g. 940x1824")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
