"""Files that appear whole or not at all."""

import hashlib
import os
from pathlib import Path

LONG_NAME = 200  # bytes; file systems take 255


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Writes `content` to a temporary file beside `path` and renames it; makes the folder.

    A reader, or what a crash leaves, sees the old file or the whole new one. With `sync` so does a power cut; without,
    a stream of pictures does not wait for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{_short(path.name)}.{os.getpid()}.part")
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


def _short(name: str) -> str:
    """The name, or a digest where little more would be too long for a file system."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONG_NAME else hashlib.sha256(encoded).hexdigest()


def _sync_folder(folder: Path) -> None:
    """The rename itself must survive a power cut."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
