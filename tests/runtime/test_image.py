"""Reading pictures: what is converted, and what is refused in words."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.errors import ImageError
from runtime.image import find_inputs, read_picture

Write = Callable[..., Path]


@pytest.fixture
def photo() -> np.ndarray:
    """Something with detail everywhere, so that a JPEG of it is long."""
    noise = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_png_comes_back_exactly(write: Write, photo: np.ndarray) -> None:
    assert np.array_equal(read_picture(write("a.png", photo)), photo)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_red_is_the_first_channel(write: Write, suffix: str) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 250
    pixel = read_picture(write("red" + suffix, red))[16, 16].astype(int)
    assert abs(pixel - [250, 0, 0]).max() < 8


def test_grey_scale_becomes_rgb(write: Write, photo: np.ndarray) -> None:
    grey = photo[..., 0]
    assert np.array_equal(read_picture(write("grey.png", grey)), np.repeat(grey[..., None], 3, axis=2))


def test_transparency_is_dropped(write: Write, photo: np.ndarray) -> None:
    rgba = np.dstack([photo, np.arange(320, dtype=np.uint8)[None].repeat(240, 0)])
    assert np.array_equal(read_picture(write("rgba.png", rgba)), photo)


def test_sixteen_bits_become_eight(write: Write, photo: np.ndarray) -> None:
    # p in 8 bits is 257 p in 16: white stays white
    assert np.array_equal(read_picture(write("deep.png", photo.astype(np.uint16) * 257)), photo)


def test_a_turned_picture_is_set_upright(write: Write, photo: np.ndarray) -> None:
    data = write("a.jpg", photo).read_bytes()
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    (turned := write("a.jpg", photo)).write_bytes(data[:2] + segment + data[2:])
    assert read_picture(turned).shape == (320, 240, 3)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.995])
@pytest.mark.parametrize("ending", [b"", b"\xff\xd9"], ids=["cut", "cut-with-end-marker"])
def test_a_truncated_jpeg_is_refused(
    write: Write, photo: np.ndarray, options: tuple[int, ...], share: float, ending: bytes
) -> None:
    """With an end marker put behind the cut, the decoder fills the rest with grey and returns it as a picture."""
    path = write("a.jpg", photo, *options)
    read_picture(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)] + ending)
    with pytest.raises(ImageError, match=r"a\.jpg: .*(cut short|damaged)"):
        read_picture(path)


def test_a_jpeg_with_a_hole_is_refused(write: Write, photo: np.ndarray) -> None:
    path = write("a.jpg", photo)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 4000 :])
    with pytest.raises(ImageError, match="damaged"):
        read_picture(path)


def test_bytes_after_a_jpeg_do_no_harm(write: Write, photo: np.ndarray) -> None:
    path = write("a.jpg", photo)
    expected = read_picture(path)
    path.write_bytes(path.read_bytes() + b"a maker's note")
    assert np.array_equal(read_picture(path), expected)


def test_a_thumbnail_in_a_truncated_jpeg_is_not_its_end(write: Write, photo: np.ndarray) -> None:
    small = write("small.jpg", photo[:32, :32]).read_bytes()
    data = write("a.jpg", photo).read_bytes()
    segment = b"\xff\xe2" + struct.pack(">H", len(small) + 2) + small
    (path := write("b.jpg", photo)).write_bytes(data[:2] + segment + data[2 : len(data) // 2])
    with pytest.raises(ImageError, match="cut short"):
        read_picture(path)
    path.write_bytes(data[:2] + segment + data[2:])
    assert read_picture(path).shape == photo.shape


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_png_is_refused(write: Write, photo: np.ndarray, share: float) -> None:
    path = write("a.png", photo)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"a\.png: .*cut short"):
        read_picture(path)


def test_a_png_with_a_flipped_bit_is_refused(write: Write, photo: np.ndarray) -> None:
    path = write("a.png", photo)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ImageError, match="checksum"):
        read_picture(path)


def test_a_png_whose_pixels_end_early_is_refused(tmp_path: Path) -> None:
    """Every chunk is whole and summed up rightly; only the pixels are too few."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10 * (64 * 3 + 1)))
    path = tmp_path / "short.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    with pytest.raises(ImageError, match=r"short\.png"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".tif"])
def test_other_truncated_pictures_are_refused(write: Write, photo: np.ndarray, suffix: str) -> None:
    path = write("a" + suffix, photo)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="not a picture"):
        read_picture(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (b"hello, this is text\n" * 50, "not a picture"), (b"\xff\xd8", "cut short")],
)
def test_no_picture_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\.jpg: .*{message}"):
        read_picture(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_picture(tmp_path / "nothing.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        read_picture(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 1, 3), "1x1 pixels are too few"), ((16, 400, 3), "strip"), ((400, 16, 3), "strip")]
)
def test_what_shows_no_road_is_refused(write: Write, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_picture(write("a.png", np.zeros(shape, np.uint8)))


def test_floats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.zeros((32, 32, 3), np.float32))
    with pytest.raises(ImageError, match=r"float32|not a picture"):
        read_picture(path)


def test_decoder_warnings_do_not_reach_the_terminal(
    write: Write, photo: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write("a.jpg", photo)
    path.write_bytes(path.read_bytes()[:5000] + b"\xff\xd9")
    with pytest.raises(ImageError):
        read_picture(path)
    assert capfd.readouterr().err == ""


def test_inputs_are_found_once_in_order(write: Write, tmp_path: Path) -> None:
    small = np.zeros((16, 16, 3), np.uint8)
    b, a = write("d/b.png", small), write("d/a.jpg", small).rename(tmp_path / "d/a.JPG")
    write("d/deeper/c.png", small)
    (tmp_path / "d" / "LICENSE").write_text("text")
    (tmp_path / "d" / "v.mp4").write_bytes(b"")
    (tmp_path / "none").mkdir()
    pictures, videos, complaints = find_inputs([b, tmp_path / "d", tmp_path / "none", tmp_path / "missing.png"])
    assert pictures == [b, a, tmp_path / "missing.png"]
    assert videos == [tmp_path / "d" / "v.mp4"]
    assert len(complaints) == 1
    assert "none: no pictures in this folder" in complaints[0][1]
