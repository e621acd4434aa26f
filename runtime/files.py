"""Files that appear whole or not at all, and names that a file system takes."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

LONG_NAME, LONG_STEM = 200, 250  # bytes; file systems take 255


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Writes `content` to a temporary file beside `path` and renames it; makes the folder.

    A reader, or what a crash leaves, sees the old file or the whole new one. With `sync` so does a power cut; without,
    a stream of pictures does not wait for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{short_name(path.name)}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        _sync_folder(path.parent)


def short_name(name: str) -> str:
    """The name, or a digest where little more would be too long for a file system."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONG_NAME else hashlib.sha256(encoded).hexdigest()


def distinct_stems(stems: Iterable[str]) -> list[str]:
    """The same names, numbered where two are equal, and cut where a suffix would make one too long."""
    taken: set[str] = set()
    distinct = []
    for stem in stems:
        name, number = _cut(stem, ""), 1
        while name in taken:
            number += 1
            name = _cut(stem, f"-{number}")
        taken.add(name)
        distinct.append(name)
    return distinct


def _cut(stem: str, ending: str) -> str:
    """The name with its ending, shortened in front of that. What is cut within a letter loses the letter."""
    encoded = os.fsencode(stem)
    room = LONG_STEM - len(ending)
    return (stem if len(encoded) <= room else encoded[:room].decode(errors="ignore")) + ending


def _sync_folder(folder: Path) -> None:
    """The rename itself must survive a power cut."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
