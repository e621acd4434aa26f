"""Converters, on small hand-made samples in each set's own file layout, as a user calls them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from train.data.classes import FENCE, LANE, ROAD, SKY, VEHICLE
from train.data.convert.__main__ import main
from train.data.convert.labels import ANY_LINE, BUILDING_OR_FENCE, NONE_OR_OTHER_MARKING, ROAD_OR_MARKING
from train.data.folder import FolderSource
from train.data.samples import Boxes

Array = np.ndarray
HW = (60, 80)
PICTURE = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)


def write(path: Path, pixels: Array) -> None:
    """A picture; colours are RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = pixels if pixels.ndim == 2 else pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]]
    assert cv2.imwrite(str(path), order)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def converted(kind: str, target: Path, **options: Any) -> FolderSource:
    """The set that the command writes."""
    assert main(call(kind, target, **options)) == 0
    return FolderSource(target)


def call(kind: str, target: Path, **options: Any) -> list[str]:
    flat = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [kind, *flat, str(target)]


def rows(boxes: Boxes) -> list[tuple[Any, ...]]:
    """(x1, y1, x2, y2, class, ignored), in order."""
    return sorted(
        (*box, index, ignored)
        for box, index, ignored in zip(boxes.boxes.tolist(), boxes.classes.tolist(), boxes.ignore.tolist(), strict=True)
    )


def camvid(folder: Path) -> None:
    mask = np.zeros(HW, np.uint8)  # sky
    mask[40:] = 3  # road
    mask[30:45, 10:30] = 8  # a car
    mask[30:45, 50:52] = 8  # two pixels of another: a speck
    mask[10:20, 60:70] = 6  # a sign, or a light
    mask[55:, :] = 11
    write(folder / "images" / "a.png", PICTURE)
    write(folder / "masks" / "a.png", mask)


def test_camvid_by_index(tmp_path: Path) -> None:
    camvid(tmp_path)
    source = converted("camvid", tmp_path / "set", images=tmp_path / "images", masks=tmp_path / "masks")
    (sample,) = source
    assert np.array_equal(sample.picture, PICTURE)
    mask = sample.masks["seg_default"]
    assert [mask[0, 0], mask[46, 0], mask[35, 15], mask[58, 0]] == [SKY, ROAD_OR_MARKING, VEHICLE, 255]
    assert source.labels["seg_default"].either == {ROAD_OR_MARKING: ("road", "lane marking")}
    vehicles = [(10, 30, 30, 45, 0, False), (50, 30, 52, 45, 0, True)]
    assert rows(sample.boxes["det_vehicle_sign"]) == [*vehicles, (60, 10, 70, 20, 1, False)]
    assert rows(sample.boxes["det_cyclist_light"]) == [(60, 10, 70, 20, 1, True)], "what may be a light is ignored"
    assert rows(sample.boxes["det_person"]) == []
    assert "det_rear" not in source.labels, "it knows no fronts and rears: the task must not learn that there are none"


def test_camvid_as_published(tmp_path: Path) -> None:
    mask = np.full((*HW, 3), (128, 64, 128), np.uint8)
    mask[:10] = (128, 128, 128)
    mask[50:52] = (128, 0, 192)
    mask[20:30, 20:30] = (0, 64, 64)  # a light
    write(tmp_path / "images" / "0001TP_006690.png", PICTURE)
    write(tmp_path / "labels" / "0001TP_006690_L.png", mask)
    source = converted("camvid", tmp_path / "set", images=tmp_path / "images", masks=tmp_path / "labels")
    found = source[0].masks["seg_default"]
    assert [found[0, 0], found[40, 0], found[51, 0]] == [SKY, ROAD, LANE]
    assert rows(source[0].boxes["det_cyclist_light"]) == [(20, 20, 30, 30, 1, False)]
    assert rows(source[0].boxes["det_vehicle_sign"]) == []


def test_comma10k(tmp_path: Path) -> None:
    mask = np.full((*HW, 4), (128, 128, 96, 255), np.uint8)  # with an alpha channel, as a few are
    mask[40:, :, :3] = (64, 32, 32)
    mask[45:, 30:34, :3] = (255, 0, 0)
    write(tmp_path / "imgs" / "0000_a.png", PICTURE)
    write(tmp_path / "masks" / "0000_a.png", mask)
    source = converted("comma10k", tmp_path / "set", images=tmp_path / "imgs", masks=tmp_path / "masks")
    found = source[0].masks["seg_lane"]
    assert [found[0, 0], found[50, 0], found[50, 31]] == [0, NONE_OR_OTHER_MARKING, ANY_LINE]
    assert source.labels["seg_lane"].either[ANY_LINE] == ("solid line", "dashed line")
    assert list(source.labels) == ["seg_lane"]


def polygon(label: str, x1: int, y1: int, x2: int, y2: int) -> dict[str, Any]:
    return {"label": label, "polygon": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]}


def cityscapes(folder: Path) -> None:
    objects = [
        polygon("sky", 0, 0, 79, 59),
        polygon("road", 0, 40, 79, 59),
        polygon("wall", 70, 30, 79, 39),
        polygon("guard rail", 60, 30, 69, 39),
        polygon("car", 5, 30, 24, 44),
        polygon("cargroup", 30, 35, 39, 40),
        polygon("bicycle", 45, 40, 54, 50),
        polygon("rider", 46, 25, 53, 42),
        polygon("traffic light", 70, 5, 73, 12),
        polygon("car", 2, 50, 3, 51),
        polygon("ego vehicle", 0, 48, 20, 59),  # hides the second car
    ]
    write(folder / "leftImg8bit/val/city/city_000000_000019_leftImg8bit.png", PICTURE)
    content = {"imgHeight": HW[0], "imgWidth": HW[1], "objects": objects}
    write_json(folder / "gtFine/val/city/city_000000_000019_gtFine_polygons.json", content)


CITYSCAPES_BOXES = {
    "det_vehicle_sign": [(5, 30, 25, 45, 0, False), (30, 35, 40, 41, 0, True)],
    "det_cyclist_light": [(45, 25, 55, 51, 0, False), (70, 5, 74, 13, 1, False)],
    "det_person": [],
}


def test_cityscapes_polygons(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    source = converted(
        "cityscapes", tmp_path / "set", images=tmp_path / "leftImg8bit/val", labels=tmp_path / "gtFine/val"
    )
    sample = source[0]
    assert {task: rows(boxes) for task, boxes in sample.boxes.items()} == CITYSCAPES_BOXES
    mask = sample.masks["seg_default"]
    assert [mask[0, 0], mask[45, 60], mask[35, 75], mask[35, 65]] == [SKY, ROAD_OR_MARKING, BUILDING_OR_FENCE, FENCE]
    assert mask[55, 5] == 255
    assert mask[48, 46] == 255, "a bicycle without its rider is no class"


def test_cityscapes_images(tmp_path: Path) -> None:
    ids, instances = np.full(HW, 23, np.uint8), np.full(HW, 23, np.uint16)
    for index, number, box in [
        (7, 7, (0, 40, 80, 60)),
        (26, 26000, (5, 30, 25, 45)),
        (26, 26, (30, 35, 40, 41)),  # a group
        (33, 33000, (45, 40, 55, 51)),
        (25, 25000, (46, 25, 54, 43)),
        (19, 19, (70, 5, 74, 25)),
    ]:
        x1, y1, x2, y2 = box
        ids[y1:y2, x1:x2], instances[y1:y2, x1:x2] = index, number
    stem = tmp_path / "gt/val/city/city_1_2"
    write(Path(f"{tmp_path}/left/val/city/city_1_2_leftImg8bit.png"), PICTURE)
    write(Path(f"{stem}_gtFine_labelIds.png"), ids)
    write(Path(f"{stem}_gtFine_instanceIds.png"), instances)
    source = converted("cityscapes", tmp_path / "set", images=tmp_path / "left", labels=tmp_path / "gt")
    found = {task: rows(boxes) for task, boxes in source[0].boxes.items()}
    lights = [(45, 25, 55, 51, 0, False), (70, 5, 74, 25, 1, False)]
    assert found == CITYSCAPES_BOXES | {"det_cyclist_light": lights}
    assert source[0].masks["seg_default"][50, 60] == ROAD_OR_MARKING


def box2d(category: str, *corners: float) -> dict[str, Any]:
    return {"category": category, "box2d": dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))}


def lane(category: str, style: str, *points: tuple[float, float], types: str | None = None) -> dict[str, Any]:
    line = {"vertices": [list(point) for point in points], "types": types or "L" * len(points), "closed": False}
    return {"category": category, "attributes": {"direction": "parallel", "style": style}, "poly2d": [line]}


def test_bdd100k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stem in ("a", "b", "only_boxes"):
        write(tmp_path / f"images/{stem}.jpg", PICTURE)
    objects = [box2d("car", 1, 2, 30, 20), box2d("rider", 40, 10, 50, 40), box2d("motorcycle", 40, 30, 52, 50)]
    objects += [box2d("other person", 60, 10, 65, 30), box2d("traffic sign", 70, 1, 75, 6)]
    frames = [{"name": "a.jpg", "labels": objects}, {"name": "b.jpg"}, {"name": "only_boxes.jpg", "labels": []}]
    write_json(tmp_path / "det_val.json", frames)
    lines = [lane("single white", "dashed", (10, 0), (10, 59)), lane("road curb", "solid", (70, 0), (70, 59))]
    lines += [lane("double yellow", "solid", (40, 59), (40, 40), (40, 20), (40, 0), types="LCCC")]
    crosswalk, stop_line = (
        lane("crosswalk", "solid", (0, 30), (79, 30)),
        lane("single white", "solid", (72, 50), (79, 50)),
    )
    stop_line["attributes"]["direction"] = "vertical"
    frames = [{"name": "a.jpg", "labels": [*lines, crosswalk, stop_line]}, {"name": "b.jpg", "labels": None}]
    write_json(tmp_path / "lane_val.json", {"frames": frames})
    mask = np.full(HW, 10, np.uint8)
    mask[40:] = 0
    mask[0] = 255
    for stem in ("a", "b"):
        write(tmp_path / f"masks/{stem}.png", mask)
    source = converted(
        "bdd100k",
        tmp_path / "set",
        images=tmp_path / "images",
        boxes=tmp_path / "det_val.json",
        lanes=tmp_path / "lane_val.json",
        masks=tmp_path / "masks",
    )
    assert len(source) == 2, "pictures that everything labels"
    assert "1 pictures left out, without some of the labels asked for" in capsys.readouterr().out
    sample, empty = source
    assert rows(sample.boxes["det_vehicle_sign"]) == [(1, 2, 30, 20, 0, False), (70, 1, 75, 6, 1, False)]
    assert rows(sample.boxes["det_cyclist_light"]) == [(40, 10, 52, 50, 0, True)], "on a motorcycle"
    assert rows(sample.boxes["det_person"]) == [(60, 10, 65, 30, 0, True)]
    found = sample.masks["seg_lane"]
    assert [found[10, 10], found[10, 40], found[30, 60], found[30, 10], found[50, 75]] == [2, 1, 3, 2, 3]
    unknown = [found[10, 70], found[5, 60]]
    assert unknown == [NONE_OR_OTHER_MARKING] * 2, "a kerb, and the road: BDD100K labels no arrows"
    assert [sample.masks["seg_default"][row, 0] for row in (0, 20, 50)] == [255, SKY, ROAD_OR_MARKING]
    assert (empty.masks["seg_lane"] == NONE_OR_OTHER_MARKING).all()
    assert all(not len(boxes.boxes) for boxes in empty.boxes.values())


def test_bdd100k_a_file_for_each_picture(tmp_path: Path) -> None:
    write(tmp_path / "images/a.jpg", PICTURE)
    line = {"category": "lane/single white", "attributes": {"style": "solid"}, "poly2d": [[5, 0, "L"], [5, 59, "L"]]}
    write_json(tmp_path / "labels/a.json", {"name": "a", "frames": [{"objects": [box2d("bus", 1, 2, 30, 20), line]}]})
    options = {"images": tmp_path / "images", "boxes": tmp_path / "labels", "lanes": tmp_path / "labels"}
    (sample,) = converted("bdd100k", tmp_path / "set", **options)
    assert rows(sample.boxes["det_vehicle_sign"]) == [(1, 2, 30, 20, 0, False)]
    assert sample.masks["seg_lane"][20, 5] == 1


def test_voc(tmp_path: Path) -> None:
    write(tmp_path / "JPEGImages/000001.jpg", PICTURE)
    box = "<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>20</xmax><ymax>60</ymax></bndbox>"
    objects = f"<object><name>person</name><difficult>1</difficult>{box}</object><object><name>car</name>{box}</object>"
    (tmp_path / "Annotations").mkdir()
    text = f"<annotation><size><width>80</width><height>60</height></size>{objects}</annotation>"
    (tmp_path / "Annotations/000001.xml").write_text(text)
    source = converted("voc", tmp_path / "set", images=tmp_path / "JPEGImages", annotations=tmp_path / "Annotations")
    assert rows(source[0].boxes["det_person"]) == [(0, 10, 20, 60, 0, True)]
    assert rows(source[0].boxes["det_vehicle_sign"]) == [(0, 10, 20, 60, 0, False)]
    assert source.labels["det_vehicle_sign"].unlabelled == ("traffic sign",)
    assert "det_cyclist_light" not in source.labels, "VOC has no traffic lights, and does not say where none are"


def spoil_mask_value(folder: Path) -> None:
    write(folder / "masks/b.png", np.full(HW, 12, np.uint8))


def spoil_mask_size(folder: Path) -> None:
    write(folder / "masks/b.png", np.zeros((30, 40), np.uint8))


def spoil_picture(folder: Path) -> None:
    (folder / "images/b.png").write_bytes(b"no picture")


def spoil_pair(folder: Path) -> None:
    (folder / "masks/b.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (spoil_mask_value, "masks/b.png: value 12 is none of this set's classes"),
        (spoil_mask_size, "masks/b.png: is 30 x 40 pixels (h x w), its picture 60 x 80"),
        (spoil_picture, "images/b.png"),
        (spoil_pair, "images/b.png: has no labels"),
    ],
)
def test_bad_labels_are_listed_and_skipped_only_if_told_so(
    tmp_path: Path, spoil: Callable[[Path], None], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    camvid(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder / "b.png").write_bytes((tmp_path / folder / "a.png").read_bytes())
    spoil(tmp_path)
    arguments = call("camvid", tmp_path / "set", images=tmp_path / "images", masks=tmp_path / "masks")
    assert main(arguments) == 1
    assert line in capsys.readouterr().err
    assert not (tmp_path / "set/annotations.json").exists(), "no set that looks whole"
    assert main([*arguments, "--skip-bad"]) == 0
    assert line in capsys.readouterr().err
    assert len(FolderSource(tmp_path / "set")) == 1
    assert main(arguments) == 2, "never over a data set"
    assert "there is a data set already" in capsys.readouterr().err


def test_what_a_refused_call_left_is_not_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stem in ("a", "b"):
        write(tmp_path / f"images/{stem}.jpg", PICTURE)
    frames = [{"name": "a.jpg", "labels": []}, {"name": "b.jpg", "labels": [box2d("spaceship", 1, 1, 9, 9)]}]
    write_json(tmp_path / "det.json", frames)
    write_json(tmp_path / "lanes.json", [{"name": "a.jpg"}, {"name": "b.jpg"}])
    images, boxes = ("--images", str(tmp_path / "images")), ("--boxes", str(tmp_path / "det.json"))
    target = tmp_path / "set"
    assert main(["bdd100k", *images, *boxes, "--lanes", str(tmp_path / "lanes.json"), str(target)]) == 1
    assert (target / "masks/seg_lane").is_dir()
    assert main(["bdd100k", *images, *boxes, "--skip-bad", str(target)]) == 0
    assert "seg_lane" not in FolderSource(target).labels
    assert sorted(path.name for path in target.iterdir()) == ["annotations.json", "images"]
    (tmp_path / "own/images").mkdir(parents=True)
    assert main(["bdd100k", *images, *boxes, "--skip-bad", str(tmp_path / "own")]) == 2
    assert "own/images: is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["camvid", "--images", "none", "--masks", "none"], "none: no such folder"),
        (["bdd100k", "--images", "."], "holds no pictures"),
        (["coco", "--images", ".", "--annotations", "none.json"], "none.json: is not in COCO's format"),
        (["voc", "--images", "images", "--annotations", ".", "--map", "a=b"], "--map a=b: give NAME=TASK/CLASS"),
    ],
)
def test_what_cannot_start_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty/images/a.png", PICTURE)
    if "." in arguments and "bdd100k" in arguments:
        (tmp_path / "empty/images/a.png").unlink()
    monkeypatch.chdir(tmp_path / "empty")
    assert main([*arguments, "set"]) == 2
    assert message in capsys.readouterr().err
