"""`python -m train.data.show`: statistics and a labelled mosaic of a data set, so that a broken label is seen."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs import ConfigError, load
from configs.schema import Config
from configs.task import DetectionTask, SegmentationTask
from runtime.arguments import at_least
from runtime.results import write_json
from train.data.classes import IGNORE
from train.data.dataset import Labelled, labelled_groups
from train.data.draw import tiles_of, write_mosaic
from train.data.errors import DataError
from train.data.samples import Boxes, Either, Sample

DESCRIPTION = """Count what a data set labels, and draw some of its pictures with their labels. Writes statistics.json
and mosaic.jpg to the folder --out: a row for each picture, boxes first, then every mask. Ignored boxes are grey; pixels
of which nothing is known are black, those that may be of several classes are striped."""
TABLE_WIDTH = 140  # for a file or a pipe, where no terminal says how wide it is


@dataclass
class BoxCounts:
    """Of one class: boxes that count, ignored ones, pictures that have some, (h, w) of those that count."""

    boxes: int = 0
    ignored: int = 0
    pictures: int = 0
    sizes: list[tuple[float, float]] = field(default_factory=list)
    unlabelled: int = 0

    def to_json(self) -> dict[str, Any]:
        """With the 10th, 50th and 90th percentile of height and width in pixels."""
        spread = np.percentile(self.sizes, [10, 50, 90], axis=0).round(1).tolist() if self.sizes else None
        counts = {"boxes": self.boxes, "ignored": self.ignored, "pictures": self.pictures}
        return {**counts, "hw_percentiles": spread, "pictures_unlabelled": self.unlabelled}


@dataclass
class Statistics:
    """What was counted: boxes by task and class, pixels by task and value of the mask."""

    pictures: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    boxes: dict[str, list[BoxCounts]] = field(default_factory=dict)
    pixels: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, sample: Sample, tasks: Mapping[str, DetectionTask | SegmentationTask]) -> None:
        """One picture."""
        self.pictures += 1
        size = "x".join(map(str, sample.picture.shape[:2]))
        self.sizes[size] = self.sizes.get(size, 0) + 1
        for name, boxes in sample.boxes.items():
            counts = self.boxes.setdefault(name, [BoxCounts() for _ in tasks[name].classes])
            for index, entry in enumerate(counts):
                add_boxes(entry, boxes, index)
        for name, mask in sample.masks.items():
            found = np.bincount(mask.ravel(), minlength=256)
            self.pixels[name] = self.pixels.get(name, np.zeros(256, np.int64)) + found

    def to_json(
        self, tasks: Mapping[str, DetectionTask | SegmentationTask], either: Mapping[str, Either]
    ) -> dict[str, Any]:
        """JSON-able, shares of pixels in percent; `either`: values that stand for several classes, by task."""
        result: dict[str, Any] = {"pictures": self.pictures, "sizes": self.sizes, "tasks": {}}
        for name, counts in self.boxes.items():
            rows = zip(tasks[name].classes, counts, strict=True)
            result["tasks"][name] = {entry.name: count.to_json() for entry, count in rows}
        for name, pixels in self.pixels.items():
            shares = {entry.name: share(pixels, index) for index, entry in enumerate(tasks[name].classes)}
            names = [entry.name for entry in tasks[name].classes]
            several = {
                " or ".join(names[index] for index in classes): share(pixels, value)
                for value, classes in either[name].items()
            }
            result["tasks"][name] = {**shares, **several, "unknown": share(pixels, IGNORE)}
        return result


def add_boxes(counts: BoxCounts, boxes: Boxes, index: int) -> None:
    """Counts the boxes of one class in a picture."""
    mine = boxes.classes == index
    counted = boxes.boxes[mine & ~boxes.ignore]
    counts.boxes += len(counted)
    counts.ignored += int((mine & boxes.ignore).sum())
    counts.pictures += bool(mine.any())
    counts.unlabelled += index in boxes.unlabelled
    counts.sizes += [(float(y2 - y1), float(x2 - x1)) for x1, y1, x2, y2 in counted]


def share(pixels: NDArray[np.int64], value: int) -> float:
    """Percent of the pixels that have the value."""
    return round(100 * float(pixels[value]) / max(1, int(pixels.sum())), 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.data.show", description=DESCRIPTION)
    parser.add_argument("--config", type=Path, required=True, metavar="C", help="its tasks, classes and colours")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a data set on disk (default: the config's own data)")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="of the config's data")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--count", type=at_least(1), default=8, metavar="N", help="pictures in the mosaic of a set (default: 8)"
    )
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="count only the first N pictures of every set")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
        options.out.mkdir(parents=True, exist_ok=True)
        groups = labelled_groups(config, options.split, data=options.data)
        sources = [source for _, group in groups for source in group]
        for number, source in enumerate(sources):
            folder = options.out / f"set_{number}" if len(sources) > 1 else options.out
            show(source, config, folder, options.count, options.limit)
    except (ConfigError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def show(source: Labelled, config: Config, folder: Path, count: int, limit: int | None) -> None:
    """Writes statistics and mosaic of a source, and prints the former."""
    tasks = {task.name: task for task in config.tasks}
    total = min(len(source), limit or len(source))
    drawn = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    statistics, rows = Statistics(), []
    for index in track(range(total), description="reading", console=Console(stderr=True)):
        sample = source[index]
        statistics.add(sample, tasks)
        if index in drawn:
            rows.append(tiles_of(sample, tasks, source.either))
    folder.mkdir(parents=True, exist_ok=True)
    result = statistics.to_json(tasks, source.either)
    write_json(folder / "statistics.json", result)
    write_mosaic(folder / "mosaic.jpg", rows, [tasks[name] for name in result["tasks"]])
    print_statistics(result, source.where)
    print(f"wrote {folder / 'statistics.json'} and {folder / 'mosaic.jpg'}")


def print_statistics(result: Mapping[str, Any], where: str) -> None:
    """The statistics for people."""
    sizes = ", ".join(f"{count} of {size}" for size, count in result["sizes"].items())
    table = Table(title=f"{where}: {result['pictures']} pictures ({sizes})")
    for column in ("task", "class", "boxes", "ignored", "in pictures", "h x w, median", "% of pixels"):
        table.add_column(column, justify="left" if column in ("task", "class") else "right")
    for task, classes in result["tasks"].items():
        for name, values in classes.items():
            table.add_row(task, name, *cells(values))
        table.add_section()
    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(table)


def cells(values: Any) -> Iterable[str]:
    """Of one class: counts of boxes, or a share of pixels."""
    if not isinstance(values, Mapping):
        return ["", "", "", "", f"{values:.2f}"]
    if values["pictures_unlabelled"]:
        return ["not labelled", "", "", "", ""]
    median = values["hw_percentiles"][1] if values["hw_percentiles"] else None
    size = f"{median[0]:.0f} x {median[1]:.0f}" if median else ""
    return [str(values["boxes"]), str(values["ignored"]), str(values["pictures"]), size, ""]


if __name__ == "__main__":
    sys.exit(main())
