"""Packed data sets: the same samples from a few files."""

import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from train.data.errors import DataError
from train.data.folder import FolderSource
from train.data.generate import generate
from train.data.pack import main, pack
from train.data.samples import Sample


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    generate(tmp_path / "loose", 5, 3, [(240, 320)])
    return tmp_path / "loose"


def read_all(folder: Path) -> list[Sample]:
    source = FolderSource(folder)
    return [source[index] for index in range(len(source))]


def test_samples_are_the_same(loose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "packed"
    assert main([str(loose), str(target), "--megabytes", "1"]) == 0
    assert str(target / "shards") in capsys.readouterr().out
    assert FolderSource(loose).labels == FolderSource(target).labels
    for a, b in zip(read_all(loose), read_all(target), strict=True):
        assert np.array_equal(a.picture, b.picture)
        assert all(np.array_equal(a.masks[task], b.masks[task]) for task in a.masks)
        assert all(np.array_equal(a.boxes[task].boxes, b.boxes[task].boxes) for task in a.boxes)


def test_shards_are_of_the_size_asked_for_and_unpack_to_the_folder(loose: Path, tmp_path: Path) -> None:
    count = pack(loose, tmp_path / "packed", 200_000)
    shards = sorted((tmp_path / "packed/shards").iterdir())
    assert len(shards) == count > 1
    for shard in shards:
        with tarfile.open(shard) as file:
            sizes = [member.size for member in file]
        assert sum(sizes) <= 200_000 or len(sizes) == 1
        subprocess.run(["tar", "-xf", str(shard), "-C", str(tmp_path / "packed")], check=True)
    for path in (loose / "images").iterdir():
        assert (tmp_path / "packed/images" / path.name).read_bytes() == path.read_bytes()


def test_packing_twice_gives_the_same_bytes(loose: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack(loose, tmp_path / name, 1 << 30)
    one, two = (tmp_path / name / "shards/00000.tar" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_shard_that_was_cut_is_named(loose: Path, tmp_path: Path) -> None:
    pack(loose, tmp_path / "packed", 1 << 30)
    shard = tmp_path / "packed/shards/00000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(DataError, match=r"00000\.tar"):
        read_all(tmp_path / "packed")


def test_nothing_is_overwritten_and_nothing_missing(
    loose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(loose), str(loose)]) == 2
    assert "there is a data set already" in capsys.readouterr().err
    next((loose / "masks/seg_lane").iterdir()).unlink()
    assert main([str(loose), str(tmp_path / "packed")]) == 2
    assert "seg_lane" in capsys.readouterr().err
    assert not (tmp_path / "packed/annotations.json").exists()
