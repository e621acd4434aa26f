"""Video files: frames in, and overlays out as a video of the same frame rate."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2

from runtime.errors import VideoError
from runtime.files import short_name
from runtime.image import Picture, check_size

SPARE = 1  # frames that a file may state and not have,
SPARE_SHARE = 0.1  # and the share of a number that was reckoned from the duration
DEFAULT_RATE = 25.0  # for files that do not say theirs


class VideoReader:
    """Iterates over a video's frames, RGB uint8 (h, w, 3). `rate` is in frames a second, `count` what the file
    announces, 0 if it does not. VideoError if it cannot be opened, or ends well before that.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise VideoError(f"{path}: no such file")
        # without these, a file that is no video fills the screen with the attempts of every decoder
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._path = path
        self._spare = 0.0 if states_count(path) else SPARE_SHARE
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError(f"{path}: not a video, damaged or cut short; copy it again, or convert it to MP4")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else DEFAULT_RATE
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Picture]:
        seen = 0
        try:
            while True:
                found, frame = self._capture.read()
                if not found:
                    break
                if not seen:
                    check_size((frame.shape[0], frame.shape[1]), str(self._path))
                seen += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()
        if seen < self.count * (1 - self._spare) - SPARE or not seen:
            raise VideoError(
                f"{self._path}: ends after {seen} of {self.count} frames; it is cut short or damaged, copy it again"
            )


def states_count(path: Path) -> bool:
    """Whether the file's format has a number of frames in it, as MP4, MOV and AVI do. For others (Matroska, WebM, MPEG
    streams) OpenCV reckons one from the duration, which may be that of the sound.
    """
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" or (start[:4], start[8:]) == (b"RIFF", b"AVI ")


class VideoWriter:
    """Writes frames of one size to an MP4 file; a context. The file gets its name when all is written, even if that is
    less than planned because the work was interrupted: what was done is kept.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path = path
        self._temporary = path.with_name(f".{short_name(path.stem)}.part{path.suffix}")
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: Picture) -> None:
        """Adds an RGB frame. VideoError if no encoder takes it."""
        # encoders want even sides
        even = cv2.copyMakeBorder(frame, 0, frame.shape[0] % 2, 0, frame.shape[1] % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = (even.shape[1], even.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._temporary), code, self._rate, size)
            if not self._writer.isOpened():
                raise VideoError(f"{self._path}: this OpenCV cannot write MP4; use --no-overlay")
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None and self._writer.isOpened():
            self._writer.release()
            os.replace(self._temporary, self._path)
