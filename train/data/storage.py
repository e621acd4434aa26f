"""Where the files of a data set lie: one by one in its folder, or packed into tar files, `shards/*.tar`.

A tar file keeps its members uncompressed, each with a header in front, so any of them is one read away once the headers
are known. `tar -xf` on all of them gives the folder back, and tools that stream tar files can read them, too.
"""

import os
import tarfile
from pathlib import Path
from typing import Protocol

from train.data.errors import DataError

IMAGES, MASKS, SHARDS = "images", "masks", "shards"


class Storage(Protocol):
    """Files by their names relative to the set's folder, images/0001.jpg, say."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, None if there is none of that name."""

    def mask_tasks(self) -> list[str]:
        """The tasks that have masks."""

    def where(self, name: str) -> str:
        """The file's path for a message."""


class LooseFiles:
    """A folder as it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """See `Storage`."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self.where(name)}: cannot be read ({error.strerror})") from None

    def mask_tasks(self) -> list[str]:
        """See `Storage`."""
        return sorted(path.name for path in (self._folder / MASKS).glob("*") if path.is_dir())

    def where(self, name: str) -> str:
        """See `Storage`."""
        return str(self._folder / name)


class PackedFiles:
    """The tar files of a folder. DataError if one is cut short or no tar file."""

    def __init__(self, folder: Path) -> None:
        self._shards = sorted((folder / SHARDS).glob("*.tar"))
        self._places: dict[str, tuple[int, int, int]] = {}  # shard, offset, bytes
        for number, path in enumerate(self._shards):
            self._index(number, path)
        # One descriptor for all loading processes: os.pread does not move its position.
        self._files = [os.open(path, os.O_RDONLY) for path in self._shards]

    def _index(self, number: int, path: Path) -> None:
        try:
            with tarfile.open(path, "r:") as shard:
                for member in shard:
                    self._places[member.name] = (number, member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            raise DataError(f"{path}: no whole tar file ({error}); pack the data set again") from None

    def __del__(self) -> None:
        for file in getattr(self, "_files", ()):
            os.close(file)

    def read(self, name: str) -> bytes | None:
        """See `Storage`."""
        if name not in self._places:
            return None
        number, offset, size = self._places[name]
        content = os.pread(self._files[number], size, offset)
        if len(content) != size:
            raise DataError(f"{self.where(name)}: the tar file is cut short; pack the data set again")
        return content

    def mask_tasks(self) -> list[str]:
        """See `Storage`."""
        return sorted({name.split("/")[1] for name in self._places if name.startswith(f"{MASKS}/")})

    def where(self, name: str) -> str:
        """See `Storage`."""
        shard = self._shards[self._places[name][0]] if name in self._places else self._shards[0].parent
        return f"{shard}: {name}"


def open_storage(folder: Path) -> Storage:
    """Whichever there is."""
    return PackedFiles(folder) if any((folder / SHARDS).glob("*.tar")) else LooseFiles(folder)
