"""Cityscapes: gtFine's polygons, or its label and instance images; boxes are those of the instances.

It paints lane markings as road and tells walls from fences and buildings, which the project does not. Boxes of
vehicles, people and riders come from instances, groups of them are ignored. Traffic lights and signs are polygons of
their own, or, from images, connected components. A bicycle that nobody rides is no cyclist.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.classes import (
    BUILDING,
    CYCLIST,
    FENCE,
    IGNORE,
    PEDESTRIAN,
    POLE,
    SIDEWALK,
    SIGN,
    SKY,
    VEGETATION,
    VEHICLE,
)
from train.data.convert.labels import (
    BUILDING_OR_FENCE,
    CYCLIST_BOX,
    LIGHT_BOX,
    PERSON_BOX,
    ROAD_OR_MARKING,
    SIGN_BOX,
    VEHICLE_BOX,
    ForeignSet,
    Labels,
    Place,
    box_labels,
    mask_labels,
    paired,
    pictures_by_stem,
)
from train.data.convert.masks import box_around, component_rows, look_up, read_pixels
from train.data.convert.riders import Corners, add_riders
from train.data.errors import DataError
from train.data.png import Pixels

HELP = "Cityscapes: gtFine's polygons or images; boxes from instances"
PICTURE_SUFFIX = "_leftImg8bit"
POLYGONS, LABEL_IDS, INSTANCE_IDS = "_gtFine_polygons", "_gtFine_labelIds", "_gtFine_instanceIds"
GROUP = "group"  # at the end of a label: several instances in one polygon
INSTANCE = 1000  # pixels of instance n of class c are c · 1000 + n

# Names by Cityscapes' ids, with seg_default's class.
CLASSES: dict[int, tuple[str, int]] = {
    0: ("unlabeled", IGNORE),
    1: ("ego vehicle", IGNORE),
    2: ("rectification border", IGNORE),
    3: ("out of roi", IGNORE),
    4: ("static", IGNORE),
    5: ("dynamic", IGNORE),
    6: ("ground", IGNORE),
    7: ("road", ROAD_OR_MARKING),
    8: ("sidewalk", SIDEWALK),
    9: ("parking", ROAD_OR_MARKING),
    10: ("rail track", IGNORE),
    11: ("building", BUILDING),
    12: ("wall", BUILDING_OR_FENCE),
    13: ("fence", FENCE),
    14: ("guard rail", FENCE),
    15: ("bridge", BUILDING),
    16: ("tunnel", BUILDING),
    17: ("pole", POLE),
    18: ("polegroup", POLE),
    19: ("traffic light", SIGN),
    20: ("traffic sign", SIGN),
    21: ("vegetation", VEGETATION),
    22: ("terrain", VEGETATION),
    23: ("sky", SKY),
    24: ("person", PEDESTRIAN),
    25: ("rider", CYCLIST),
    26: ("car", VEHICLE),
    27: ("truck", VEHICLE),
    28: ("bus", VEHICLE),
    29: ("caravan", VEHICLE),
    30: ("trailer", VEHICLE),
    31: ("train", VEHICLE),
    32: ("motorcycle", IGNORE),
    33: ("bicycle", IGNORE),
}
VALUES = {index: value for index, (_, value) in CLASSES.items()}
IDS = {name: index for index, (name, _) in CLASSES.items()} | {"license plate": 26}
BOXES: dict[str, Place] = {
    **dict.fromkeys(("car", "truck", "bus", "caravan", "trailer", "train"), VEHICLE_BOX),
    "person": PERSON_BOX,
    "traffic light": LIGHT_BOX,
    "traffic sign": SIGN_BOX,
}
RIDERS = ("rider", "bicycle", "motorcycle")
PLACES = (*BOXES.values(), CYCLIST_BOX)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this kind needs."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="leftImg8bit/SPLIT")
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="gtFine/SPLIT")


def open_set(options: argparse.Namespace) -> ForeignSet:
    """The pictures with their polygons, or where these are not there, their label and instance images."""
    pictures = pictures_by_stem(options.images, PICTURE_SUFFIX)
    if not options.labels.is_dir():
        raise DataError(f"{options.labels}: no such folder")
    polygons, images = (
        {path.stem.removesuffix(suffix): path for path in sorted(options.labels.rglob(f"*{suffix}{ending}"))}
        for suffix, ending in ((POLYGONS, ".json"), (LABEL_IDS, ".png"))
    )
    entries, problems = paired(pictures, {**images, **polygons}, read)
    labels = box_labels(PLACES) | mask_labels("seg_default", VALUES.values())
    return ForeignSet(labels, entries, problems)


def read(path: Path, hw: tuple[int, int]) -> Labels:
    """Mask and boxes of one picture."""
    return read_polygons(path, hw) if path.suffix == ".json" else read_images(path, hw)


def read_polygons(path: Path, hw: tuple[int, int]) -> Labels:
    """Mask and boxes from a file of polygons, of which later ones cover earlier ones."""
    ids, instances = np.zeros(hw, np.uint8), np.zeros(hw, np.int32)
    objects: list[str] = []
    for name, points in polygons_of(path, hw):
        base = name if name in IDS else name.removesuffix(GROUP)
        if base not in IDS:
            raise DataError(f"{path}: label '{name}' is none of Cityscapes' classes")
        objects.append(name)
        cv2.fillPoly(ids, [points], IDS[base])
        cv2.fillPoly(instances, [points], len(objects))
    boxes = [(name, instances == number) for number, name in enumerate(objects, 1) if is_boxed(name)]
    return finished(ids, iter(boxes), path)


def polygons_of(path: Path, hw: tuple[int, int]) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Label and points (n, 2) of every polygon. DataError where the file is not in the format."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        size = int(content["imgHeight"]), int(content["imgWidth"])
        found = [
            (str(entry["label"]), np.array(entry["polygon"], np.float64).reshape(-1, 2))
            for entry in content["objects"]
            if not entry.get("deleted", 0)
        ]
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: is no file of polygons ({error!r})") from None
    if size != hw:
        raise DataError(f"{path}: is of {size[0]} x {size[1]} pixels (h x w), its picture {hw[0]} x {hw[1]}")
    for name, points in found:
        if len(points) < 3:
            raise DataError(f"{path}: a polygon of '{name}' has {len(points)} points")
        yield name, np.rint(points).astype(np.int32)


def is_boxed(name: str) -> bool:
    """Whether instances of a label become boxes, or help to make some."""
    return name.removesuffix(GROUP) in (*BOXES, *RIDERS)


def read_images(path: Path, hw: tuple[int, int]) -> Labels:
    """Mask and boxes from an image of label ids and that of instance ids beside it."""
    beside = path.with_name(path.name.replace(LABEL_IDS, INSTANCE_IDS))
    ids, instances = read_pixels(path, hw), read_pixels(beside, hw).astype(np.int32)
    whole = np.where(instances >= INSTANCE, instances // INSTANCE, instances)
    if ids.ndim != 2 or instances.ndim != 2 or (whole != ids).any():
        raise DataError(f"{beside}: contradicts {path.name}")

    def objects() -> Iterator[tuple[str, NDArray[np.bool_]]]:
        for number in np.unique(instances).tolist():
            name = CLASSES.get(number // INSTANCE if number >= INSTANCE else number, ("", 0))[0]
            if number >= INSTANCE and is_boxed(name):
                yield name, instances == number
            elif name not in ("traffic light", "traffic sign") and is_boxed(name):
                yield name + GROUP, instances == number

    labels = finished(ids, objects(), path)
    for name in ("traffic light", "traffic sign"):
        task, index = BOXES[name]
        labels.boxes[task] += component_rows(ids == IDS[name], index)
    return labels


def finished(ids: Pixels, objects: Iterator[tuple[str, NDArray[np.bool_]]], path: Path) -> Labels:
    """Labels from the ids of all pixels and the visible area of every object; an object all hidden has none."""
    labels = Labels({task: [] for task, _ in PLACES}, {"seg_default": look_up(ids, VALUES, path)})
    riders: dict[str, list[Corners]] = {name: [] for name in RIDERS}
    for name, area in objects:
        if not area.any():
            continue
        corners, base = box_around(area), name if name in BOXES else name.removesuffix(GROUP)
        if base in BOXES:
            labels.add_box(BOXES[base], corners, ignore=name != base)
        elif name == base:
            riders[name].append(corners)
        elif base == "rider":
            labels.add_box(CYCLIST_BOX, corners, ignore=True)
    add_riders(labels, *(riders[name] for name in RIDERS))
    return labels
