"""The format on disk: what is written is read, and what is wrong is named."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from train.data.errors import DataError
from train.data.folder import FolderSource
from train.data.generate import main
from train.data.scenes import render_sample

SIZE = "240x320"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "set"
    assert main(["--out", str(out), "--count", "2", "--seed", "5", "--source-hw", SIZE]) == 0
    return out


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_round_trip(folder: Path) -> None:
    source = FolderSource(folder)
    assert len(source) == 2
    for index in range(2):
        want, got = render_sample(5 + index, (240, 320)), source[index]
        assert np.array_equal(want.picture, got.picture)
        assert set(want.boxes) == set(got.boxes)
        for task, boxes in want.boxes.items():
            assert np.array_equal(boxes.boxes, got.boxes[task].boxes)
            assert np.array_equal(boxes.classes, got.boxes[task].classes)
            assert np.array_equal(boxes.ignore, got.boxes[task].ignore)
        assert all(np.array_equal(mask, got.masks[task]) for task, mask in want.masks.items())


def test_classes_come_in_the_order_of_the_categories(folder: Path) -> None:
    edit(folder, lambda content: content["categories"].reverse())
    labels = FolderSource(folder).labels
    assert labels["det_rear"].classes == ("vehicle front", "vehicle rear")
    assert labels["seg_lane"].classes is None


def test_only_images(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--count", "2", "--source-hw", SIZE, "--only-images"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene_0000000.png", "scene_0000001.png"]


@pytest.mark.parametrize("more", [[], ["--only-images"]])
def test_generate_does_not_overwrite_a_data_set(
    folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(folder), "--count", "1", "--source-hw", SIZE, *more]) == 2
    assert "there is a data set already" in capsys.readouterr().err


def test_generate_refuses_tiny_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--count", "1", "--source-hw", "8x8"]) == 2
    assert "at least 240 x 320" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4]), r"annotations\[0\]: bbox"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), r"annotations\[0\]: bbox"),
        (
            lambda c: c["annotations"][0].update(bbox=[200, 100, 240, 220]),  # corners
            r"annotations\[0\]: bbox .* lies for the most part outside its picture of 320 x 240",
        ),
        (lambda c: c["categories"][0].update(id=c["categories"][1]["id"]), "two categories have the same id"),
        (lambda c: c["annotations"][0].update(category_id=99), "category_id 99 is not among"),
        (lambda c: c["annotations"][0].update(image_id=99), "image_id 99 is not among"),
        (lambda c: c["annotations"][0].pop("bbox"), r"annotations\[0\] lacks bbox"),
        (lambda c: c["categories"][0].pop("supercategory"), r"categories\[0\] lacks supercategory"),
        (lambda c: c.update(images=[]), "'images' is empty"),
        (lambda c: c["images"][0].update(width="320"), r"images\[0\]: width is '320', must be a whole number"),
        (lambda c: c["images"][0].update(id=[1]), r"images\[0\]: id is \[1\], must be a whole number"),
        (lambda c: c["images"][0].update(file_name=7), r"images\[0\]: file_name is 7, must be a text"),
        (lambda c: c["categories"][0].update(id="1"), r"categories\[0\]: id is '1', must be a whole number"),
        (lambda c: c["images"][1].update(id=c["images"][0]["id"]), "two images have the same id"),
        (
            lambda c: c["images"][1].update(file_name="a/" + c["images"][0]["file_name"]),
            "two images have the same file",
        ),
        (lambda c: c.pop("categories"), "'categories' must be a list"),
    ],
)
def test_wrong_annotations_are_named(folder: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit(folder, change)
    with pytest.raises(DataError, match=message) as error:
        FolderSource(folder)
    assert "annotations.json" in str(error.value)


def test_broken_json_and_a_missing_file(folder: Path, tmp_path: Path) -> None:
    (folder / "annotations.json").write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        FolderSource(folder)
    with pytest.raises(DataError, match="no such file, so its folder is no data set"):
        FolderSource(tmp_path / "nowhere")


def test_wrong_masks_are_named(folder: Path) -> None:
    mask = folder / "masks" / "seg_lane" / "scene_0000005.png"
    cv2.imwrite(str(mask), np.zeros((240, 320, 3), np.uint8))
    with pytest.raises(DataError, match=r"scene_0000005\.png: has shape"):
        FolderSource(folder)[0]
    cv2.imwrite(str(mask), np.zeros((20, 20), np.uint8))
    with pytest.raises(DataError, match="is 20 x 20 pixels"):
        FolderSource(folder)[0]
    mask.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be decoded"):
        FolderSource(folder)[0]
    mask.unlink()
    with pytest.raises(DataError, match="no such mask"):
        FolderSource(folder)[0]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_masks_of_few_bits_mean_what_they_say(folder: Path, depth: int) -> None:
    """Other programs write masks of two classes in one bit."""
    mask = np.random.default_rng(0).integers(0, 1 << min(depth, 3), (240, 320)).astype(np.uint8)
    (folder / "masks/seg_lane/scene_0000005.png").write_bytes(grey_png(mask, depth))
    assert np.array_equal(FolderSource(folder)[0].masks["seg_lane"], mask)


def grey_png(values: np.ndarray, depth: int) -> bytes:
    """By the PNG specification: rows of packed samples, each behind a filter type 0."""
    bits = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - depth :].reshape(len(values), -1)
    rows = np.packbits(bits, axis=1)
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_wrong_pictures_are_named(folder: Path) -> None:
    edit(folder, lambda content: content["images"][0].update(height=299))
    with pytest.raises(DataError, match=r"annotations\.json says 299"):
        FolderSource(folder)[0]
    picture = folder / "images" / "scene_0000006.png"
    picture.write_bytes(picture.read_bytes()[:500])
    with pytest.raises(DataError, match=r"scene_0000006\.png"):
        FolderSource(folder)[1]
