"""`python -m train.data.convert KIND ... DST`: a public data set, as it is distributed, to the project's format."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import track

from runtime.errors import RuntimeRoomError
from runtime.image import read_picture
from train.data.convert import bdd100k, camvid, cityscapes, coco, comma10k, voc
from train.data.convert.labels import Entry, ForeignSet
from train.data.errors import DataError
from train.data.folder_writer import FolderWriter, begin_data_set
from train.data.samples import Boxes, Sample

DESCRIPTION = """Write a public data set in the project's format (docs/data.md): pictures are copied, labels mapped to
the classes of the six tasks; what the set does not label is marked as unknown. Every unreadable or contradictory label
is listed with its file. Exit code: 0 converted, 1 refused because of what is listed, 2 nothing could start, 130
interrupted. Look at the result with `python -m train.data.show --config C --data DST --out DIR`."""


MALFORMED = (AttributeError, LookupError, TypeError, ValueError)  # what a file of another structure leads to


class Kind(Protocol):
    """A converter: a module of this package."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def open_set(self, options: argparse.Namespace) -> ForeignSet: ...


KINDS: dict[str, Kind] = {
    "bdd100k": bdd100k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco": coco,
    "comma10k": comma10k,
    "voc": voc,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.data.convert", description=DESCRIPTION)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        of_kind = kinds.add_parser(name, help=kind.HELP, description=kind.HELP)
        kind.add_arguments(of_kind)
        of_kind.add_argument("target", type=Path, metavar="DST", help="folder to write, without a data set")
        of_kind.add_argument("--skip-bad", action="store_true", help="leave out pictures whose labels are bad")
    options = parser.parse_args(arguments)
    try:
        return convert(KINDS[options.kind].open_set(options), options.target, skip_bad=options.skip_bad)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MALFORMED as error:
        print(f"error: the labels are not in the format of {options.kind} ({error!r})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {options.target} is not complete", file=sys.stderr)
        return 130


def convert(source: ForeignSet, target: Path, *, skip_bad: bool) -> int:
    """Writes the set, with annotations.json at the end and only if nothing is bad or `skip_bad`. DataError if `target`
    holds a data set already or cannot be written.
    """
    begin_data_set(target)
    problems, written = list(source.problems), 0
    writer = FolderWriter(target, source.labels)
    for entry in track(source.entries, description="converting", console=Console(stderr=True)):
        try:
            sample = sample_of(entry)
        except (DataError, RuntimeRoomError) as error:
            problems.append(str(error))
            continue
        except MALFORMED as error:
            problems.append(f"{entry.file}: its labels are not in the set's format ({error!r})")
            continue
        writer.add(entry.stem, sample, entry.file)
        written += 1
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems and not skip_bad:
        print(
            f"error: {len(problems)} problems, listed above; correct them, or leave these pictures out with "
            f"--skip-bad. {target} is not complete",
            file=sys.stderr,
        )
        return 1
    if source.left_out:
        print(source.left_out)
    if not written:
        raise DataError(f"{target}: no picture is left to be written")
    writer.close()
    print(f"{written} pictures in {target}, {len(problems)} problems skipped; labels: {', '.join(source.labels)}")
    return 0


def sample_of(entry: Entry) -> Sample:
    """The picture with its labels. DataError or ImageError naming what is bad."""
    picture = read_picture(entry.file)
    labels = entry.read((picture.shape[0], picture.shape[1]))
    return Sample(picture, {task: Boxes.of(rows) for task, rows in labels.boxes.items()}, labels.masks)


if __name__ == "__main__":
    sys.exit(main())
