"""Picture files in, RGB pixels out; and the finding of picture files.

A decoder that meets the end of a damaged JPEG fills the rest with grey and returns it as if all were well. A wrong
picture gives wrong boxes without a word, so `read_picture` looks at the file's structure and listens to the decoder's
warnings.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from runtime.errors import ImageError
from runtime.stderr import captured

Picture = npt.NDArray[np.uint8]
Inputs = tuple[list[Path], list[Path], list[tuple[str, str]]]  # see `find_inputs`

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
MINIMUM_SIDE = 16
MAXIMUM_ASPECT = 8  # beyond it no picture of a road; a scaled strip would need gigabytes
COPY_AGAIN = "copy the file again from its source"

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# Bytes that a camera leaves between the last pixel and the end marker do no harm; anywhere else they are damage.
JPEG_DAMAGE = re.compile(
    r"Premature end of JPEG|Corrupt JPEG data: (?!\d+ extraneous bytes before marker 0xd9)[^\n]*|Unsupported marker"
)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """The picture at `path` as RGB uint8 (h, w, 3), turned upright by its EXIF entry.

    Grey-scale is copied to three channels, transparency dropped, 16 bit scaled to 8. ImageError, naming cause and cure,
    if the file is missing, empty, no picture, damaged or cut short, or too small.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    return decode_picture(data, str(path))


def decode_picture(data: bytes, where: str) -> Picture:
    """`read_picture` for the bytes of a file; `where` names it in errors."""
    if not data:
        raise ImageError(f"{where}: the file is empty; {COPY_AGAIN}")
    if data.startswith(JPEG_START):
        _check_jpeg(data, where)
    elif data.startswith(PNG_START):
        _check_png(data, where)
    warnings: list[str] = []
    try:
        with captured(warnings):
            # some decoders ignore the flag for RGB order, none the one for BGR
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ImageError(f"{where}: cannot be decoded ({error.err}); {COPY_AGAIN}") from None
    if pixels is None:
        raise ImageError(
            f"{where}: not a picture, or damaged beyond decoding; "
            "what is read: JPEG, PNG, BMP, WebP and TIFF with 8 or 16 bits per channel"
        )
    damage = JPEG_DAMAGE.search("".join(warnings))
    if damage:
        raise ImageError(f"{where}: damaged, the decoder says '{damage.group().strip()}'; {COPY_AGAIN}")
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(f"{where}: pixels of type {pixels.dtype} are not read; convert it to 8 or 16 bits per channel")
    check_size((pixels.shape[0], pixels.shape[1]), where)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def check_size(picture_hw: tuple[int, int], where: str) -> None:
    """ImageError if a picture of this size shows nothing a network could find."""
    height, width = picture_hw
    if min(height, width) < MINIMUM_SIDE:
        raise ImageError(f"{where}: {height}x{width} pixels are too few; each side needs at least {MINIMUM_SIDE}")
    if max(height, width) > MAXIMUM_ASPECT * min(height, width):
        raise ImageError(
            f"{where}: {height}x{width} is a strip; one side is over {MAXIMUM_ASPECT} times the other: cut it"
        )


def _check_jpeg(data: bytes, where: str) -> None:
    """Walks the segments to the end marker; what follows it (a second picture, a maker's note) is not looked at."""
    cut = ImageError(f"{where}: the JPEG is cut short (its end marker is missing); {COPY_AGAIN}")
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise cut
        marker = data[position + 1]
        if marker == 0xD9:
            return
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffed byte or marker without a length
            position += 2
        else:
            if position + 4 > len(data):
                raise cut
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]


def _check_png(data: bytes, where: str) -> None:
    """Walks the chunks to IEND, checking each one's sum."""
    position = len(PNG_START)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ImageError(f"{where}: the PNG is damaged (a checksum is wrong at byte {position}); {COPY_AGAIN}")
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end + 4
    raise ImageError(f"{where}: the PNG is cut short (its end is missing); {COPY_AGAIN}")


def find_inputs(inputs: Iterable[str | os.PathLike[str]]) -> Inputs:
    """(pictures, videos, complaints) for the files and folders in `inputs`: each file once, in order, a folder's by
    name; of a complaint the entry and the message.

    A file given by name is taken for a picture unless its suffix is a video's; if it does not exist, its reader will
    say so. Of a folder the files with a known suffix are taken, not those of its subfolders; one without any is
    complained of.
    """
    known = PICTURE_SUFFIXES + VIDEO_SUFFIXES
    found: dict[Path, None] = {}
    complaints: list[tuple[str, str]] = []
    for entry in map(Path, inputs):
        files = [entry]
        if entry.is_dir():
            try:
                files = sorted(path for path in entry.iterdir() if path.suffix.lower() in known and path.is_file())
            except OSError as error:
                complaints.append((str(entry), f"{entry}: cannot be read ({error.strerror})"))
                continue
            if not files:
                looked_for = f"looked for {', '.join(known)}; subfolders are not searched"
                complaints.append((str(entry), f"{entry}: no pictures in this folder ({looked_for})"))
        found.update(dict.fromkeys(files))
    videos = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
    return [path for path in found if path not in videos], videos, complaints
