"""The converter of COCO's JSON: mapping, pictures of one name, bad boxes."""

import json
from pathlib import Path

import pytest

from tests.train.test_convert import HW, PICTURE, call, converted, rows, write, write_json
from train.data.classes import DETECTION_CLASSES
from train.data.convert.__main__ import main
from train.data.folder import FolderSource


def coco(folder: Path, bbox: list[float]) -> None:
    write(folder / "images/val/a.png", PICTURE)
    write_json(
        folder / "instances.json",
        {
            "images": [{"id": 7, "file_name": "val/a.png", "height": HW[0], "width": HW[1]}],
            "categories": [{"id": 1, "name": "person"}, {"id": 10, "name": "traffic light"}, {"id": 17, "name": "cat"}],
            "annotations": [
                {"image_id": 7, "category_id": 1, "bbox": bbox, "iscrowd": 1},
                {"image_id": 7, "category_id": 10, "bbox": [50, 5, 4, 10]},
                {"image_id": 7, "category_id": 17, "bbox": [50, 5, 4, 10]},
            ],
        },
    )


def test_coco(tmp_path: Path) -> None:
    coco(tmp_path, [10, 20, 5, 15.5])
    source = converted("coco", tmp_path / "set", images=tmp_path / "images", annotations=tmp_path / "instances.json")
    assert {task: rows(boxes) for task, boxes in source[0].boxes.items()} == {
        "det_person": [(10, 20, 15, 35.5, 0, True)],
        "det_cyclist_light": [(50, 5, 54, 15, 1, False)],
    }
    assert source.labels["det_cyclist_light"].unlabelled == ("cyclist",), "no picture of COCO says where none is"
    assert source.labels["det_cyclist_light"].classes == DETECTION_CLASSES["det_cyclist_light"]
    assert source[0].boxes["det_cyclist_light"].unlabelled == (0,)


def test_coco_with_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path, [10, 20, 5, 15.5])
    arguments = ["coco", "--images", str(tmp_path / "images"), "--annotations", str(tmp_path / "instances.json")]
    mapping = ["--map", "cat=det_rear/vehicle rear", "--map", "person=none"]
    assert main([*arguments, *mapping, str(tmp_path / "set")]) == 0
    source = FolderSource(tmp_path / "set")
    assert rows(source[0].boxes["det_rear"]) == [(50, 5, 54, 15, 1, False)]
    assert list(source.labels) == ["det_rear"]
    assert main([*arguments, "--map", "cart=det_rear/vehicle rear", str(tmp_path / "other")]) == 2
    assert "has no category 'cart', but person, traffic light, cat" in capsys.readouterr().err


def test_coco_pictures_whose_names_agree_however_they_are_written(tmp_path: Path) -> None:
    coco(tmp_path, [10, 20, 5, 15.5])
    content = json.loads((tmp_path / "instances.json").read_text())
    for number, name in enumerate(("a/b.png", "a_b.png", "c/b.png"), start=20):
        write(tmp_path / "images" / name, PICTURE)
        content["images"].append({"id": number, "file_name": name})
    write_json(tmp_path / "instances.json", content)
    source = converted("coco", tmp_path / "set", images=tmp_path / "images", annotations=tmp_path / "instances.json")
    assert len(source) == 4


def test_coco_pictures_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path, [10, 20, 5, 15.5])
    content = json.loads((tmp_path / "instances.json").read_text())
    others = [("val/a.jpg", 8), ("train/a.png", 9), ("twice.png", 10), ("twice.png", 11), ("b.png", 12), ("c.png", 12)]
    for name, number in others:
        write(tmp_path / "images" / name, PICTURE)
        content["images"].append({"id": number, "file_name": name})
    write_json(tmp_path / "instances.json", content)
    arguments = call("coco", tmp_path / "set", images=tmp_path / "images", annotations=tmp_path / "instances.json")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "several images have the id 12" in error
    assert "several images have the file_name twice.png" in error
    assert main([*arguments, "--skip-bad"]) == 0
    source = FolderSource(tmp_path / "set")
    assert [len(sample.boxes["det_person"].boxes) for sample in source] == [1, 0, 0]


@pytest.mark.parametrize(("bbox", "line"), [([70, 5, 20, 5], "is not within"), ([5, 5, 0, 5], "has no area")])
def test_bad_boxes_are_named(tmp_path: Path, bbox: list[float], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path, bbox)
    assert main(call("coco", tmp_path / "s", images=tmp_path / "images", annotations=tmp_path / "instances.json")) == 1
    error = capsys.readouterr().err
    assert line in error
    assert "val/a.png: person" in error
