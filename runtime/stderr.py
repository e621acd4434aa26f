"""The process's error stream, which decoders use for warnings that nobody else tells, and progress lines, too."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()


def say(text: str) -> None:
    """Writes to the error stream, never into what `captured` collects."""
    with _lock:
        print(text, end="", file=sys.stderr, flush=True)


@contextmanager
def captured(lines: list[str]) -> Iterator[None]:
    """Collects in `lines` what the process writes to its error stream. One at a time: the stream is the process's."""
    with _lock, tempfile.TemporaryFile() as sink:
        try:
            kept = os.dup(2)
        except OSError:  # a process without an error stream
            yield
            return
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sink.seek(0)
            lines.append(sink.read().decode(errors="replace"))
