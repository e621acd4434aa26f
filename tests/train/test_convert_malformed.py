"""Labels of another structure than their set's: a line with the file, and the rest goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.test_convert import HW, PICTURE, call, camvid, rows, write, write_json
from train.data.convert.__main__ import main
from train.data.folder import FolderSource


def one_bad_of_two(arguments: list[str], target: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert line in error
    assert "Traceback" not in error
    assert main([*arguments, "--skip-bad"]) == 0
    assert len(FolderSource(target)) == 1


def test_a_mask_of_16_bits_is_not_wrapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """256 is not sky."""
    camvid(tmp_path)
    write(tmp_path / "images/b.png", PICTURE)
    write(tmp_path / "masks/b.png", np.full(HW, 256, np.uint16))
    arguments = call("camvid", tmp_path / "set", images=tmp_path / "images", masks=tmp_path / "masks")
    one_bad_of_two(arguments, tmp_path / "set", "masks/b.png: value 256 is none of this set's classes", capsys)


BOX = {"x1": 1, "y1": 1, "x2": 30, "y2": 30}


@pytest.mark.parametrize("labels", [["car"], [{"category": "car", "attributes": ["occluded"], "box2d": BOX}]])
def test_bdd100k(tmp_path: Path, labels: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for stem in ("a", "b"):
        write(tmp_path / f"images/{stem}.jpg", PICTURE)
    write_json(tmp_path / "det.json", [{"name": "a.jpg", "labels": []}, {"name": "b.jpg", "labels": labels}])
    arguments = call("bdd100k", tmp_path / "set", images=tmp_path / "images", boxes=tmp_path / "det.json")
    one_bad_of_two(arguments, tmp_path / "set", "b.jpg", capsys)


def test_cityscapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stem in ("a", "b"):
        write(tmp_path / f"images/x/{stem}_leftImg8bit.png", PICTURE)
    good: dict[str, Any] = {"imgHeight": HW[0], "imgWidth": HW[1], "objects": []}
    write_json(tmp_path / "labels/x/a_gtFine_polygons.json", good)
    write_json(tmp_path / "labels/x/b_gtFine_polygons.json", good | {"objects": ["road"]})
    arguments = call("cityscapes", tmp_path / "set", images=tmp_path / "images", labels=tmp_path / "labels")
    one_bad_of_two(arguments, tmp_path / "set", "b_gtFine_polygons.json: is no file of polygons", capsys)


def test_coco_without_a_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "images/a.png", PICTURE)
    images, categories = [{"id": 1, "file_name": "a.png", "height": 60}], [{"id": 1, "name": "person"}]
    content = {"images": images, "annotations": [], "categories": categories}
    write_json(tmp_path / "instances.json", content)
    arguments = call("coco", tmp_path / "set", images=tmp_path / "images", annotations=tmp_path / "instances.json")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "width" in error
    assert "Traceback" not in error


def test_voc_with_spaces_in_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "JPEGImages/1.jpg", PICTURE)
    box = "<bndbox><xmin> 1 </xmin><ymin>11</ymin><xmax>20.0</xmax><ymax>60</ymax></bndbox>"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/1.xml").write_text(
        "<annotation><size><width> 80 </width><height>60.0</height></size>"
        f"<object><name>person</name>{box}</object></annotation>"
    )
    arguments = call("voc", tmp_path / "set", images=tmp_path / "JPEGImages", annotations=tmp_path / "Annotations")
    assert main(arguments) == 0
    assert rows(FolderSource(tmp_path / "set")[0].boxes["det_person"]) == [(0, 10, 20, 60, 0, False)]
