"""`python -m train.data.pack SRC DST`: a data set of many files as a few large ones, for sets of many pictures."""

import argparse
import io
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from runtime.arguments import at_least
from train.data.errors import DataError
from train.data.folder import ANNOTATIONS, FolderSource
from train.data.folder_writer import begin_data_set, end_data_set
from train.data.storage import SHARDS

DESCRIPTION = """Pack the pictures and masks of a data set in the project's format (docs/data.md) into tar files of
about --megabytes each, in the order of annotations.json, which is copied. A config names the new folder like any
other."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.data.pack", description=DESCRIPTION)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the data set")
    parser.add_argument("target", type=Path, metavar="DST", help="folder to write")
    parser.add_argument("--megabytes", type=at_least(1), default=512, metavar="N", help="of a tar file (default: 512)")
    options = parser.parse_args(arguments)
    try:
        shards = pack(options.source, options.target, options.megabytes << 20)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {options.target} is not complete", file=sys.stderr)
        return 130
    print(f"{shards} tar files in {options.target / SHARDS}")
    return 0


def pack(source: Path, target: Path, shard_bytes: int) -> int:
    """Writes the tar files, annotations.json last; returns how many. DataError if a file of `source` is missing, or
    `target` holds a data set already.
    """
    files = FolderSource(source)
    begin_data_set(target)
    (target / SHARDS).mkdir(parents=True, exist_ok=True)
    numbers = track(range(len(files)), description="packing", console=Console(stderr=True))
    contents = (entry for number in numbers for entry in files.files_of(number))
    count, left = 0, next(contents, None)
    while left is not None:
        with tarfile.open(target / SHARDS / f"{count:05d}.tar", "w", format=tarfile.PAX_FORMAT) as shard:
            left = fill(shard, left, contents, shard_bytes)
        count += 1
    end_data_set(target, (source / ANNOTATIONS).read_bytes())
    return count


def fill(
    shard: tarfile.TarFile, first: tuple[str, bytes], rest: Iterator[tuple[str, bytes]], limit: int
) -> tuple[str, bytes] | None:
    """Adds files until the shard has `limit` bytes; returns the one that is left over, None at the end."""
    entry: tuple[str, bytes] | None = first
    written = 0
    while entry is not None and (not written or written + len(entry[1]) <= limit):
        name, content = entry
        member = tarfile.TarInfo(name)  # of no date and no owner: the same files are the same bytes
        member.size = len(content)
        shard.addfile(member, io.BytesIO(content))
        written += len(content)
        entry = next(rest, None)
    return entry


if __name__ == "__main__":
    sys.exit(main())
