"""BDD100K: boxes (Scalabel's JSON), lane markings (lane_mark's polylines), segmentation (label images of 19 classes).

Each of the three is a set of its own in BDD100K: of the pictures, only those are converted that all that is asked for
labels. Lanes are drawn as lines of LANE_WIDTH; crosswalks and lines across the road are other markings, kerbs none.
Arrows and letters are not labelled: what is no lane is none or other marking.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.classes import (
    BUILDING,
    CYCLIST,
    DASHED_LINE,
    FENCE,
    IGNORE,
    NO_LINE,
    OTHER_MARKING,
    PEDESTRIAN,
    POLE,
    SIDEWALK,
    SIGN,
    SKY,
    SOLID_LINE,
    VEGETATION,
    VEHICLE,
)
from train.data.convert.labels import (
    BUILDING_OR_FENCE,
    CYCLIST_BOX,
    LIGHT_BOX,
    NONE_OR_OTHER_MARKING,
    PERSON_BOX,
    ROAD_OR_MARKING,
    SIGN_BOX,
    VEHICLE_BOX,
    Entry,
    ForeignSet,
    Labels,
    Place,
    box_labels,
    checked_box,
    mask_labels,
    pictures_by_stem,
)
from train.data.convert.masks import look_up, read_pixels
from train.data.convert.riders import Corners, add_riders
from train.data.errors import DataError
from train.data.samples import TaskLabels

HELP = "BDD100K: boxes, lanes, segmentation"
MASK_SUFFIX = "_train_id"  # of label images in the older release
LANE_WIDTH = 8 / 720  # of the picture's height
CURVE_POINTS = 16
SHIFT = 4  # bits behind the point of OpenCV's coordinates

# seg_default's class by train id.
VALUES = {
    0: ROAD_OR_MARKING,
    1: SIDEWALK,
    2: BUILDING,
    3: BUILDING_OR_FENCE,
    4: FENCE,
    5: POLE,
    6: SIGN,
    7: SIGN,
    8: VEGETATION,
    9: VEGETATION,
    10: SKY,
    11: PEDESTRIAN,
    12: CYCLIST,
    13: VEHICLE,
    14: VEHICLE,
    15: VEHICLE,
    16: VEHICLE,
    17: IGNORE,
    18: IGNORE,
    255: IGNORE,
}
BOXES: dict[str, Place] = {
    **dict.fromkeys(("car", "truck", "bus", "train", "other vehicle", "trailer"), VEHICLE_BOX),
    **dict.fromkeys(("pedestrian", "person", "other person"), PERSON_BOX),
    "traffic light": LIGHT_BOX,
    "traffic sign": SIGN_BOX,
}
UNSURE = ("other person", "other vehicle", "trailer")
RIDERS = {"rider": "rider", "bicycle": "bicycle", "bike": "bicycle", "motorcycle": "motorcycle", "motor": "motorcycle"}
ACROSS = "vertical"  # to the lane: a line to stop at
STYLES = {"solid": SOLID_LINE, "dashed": DASHED_LINE}
LINES = ("double other", "double white", "double yellow", "single other", "single white", "single yellow")
Objects = Mapping[str, list[dict[str, Any]]]  # by the picture's stem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this kind needs."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="images/100k/SPLIT, or 10k")
    parser.add_argument("--boxes", type=Path, metavar="JSON|DIR", help="det_20/det_SPLIT.json, or a JSON a picture")
    parser.add_argument("--lanes", type=Path, metavar="JSON|DIR", help="lane/polygons/lane_SPLIT.json, likewise")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="sem_seg/masks/SPLIT")


def open_set(options: argparse.Namespace) -> ForeignSet:
    """The pictures for which everything asked for is labelled."""
    pictures = pictures_by_stem(options.images)
    readers: list[dict[str, Callable[[tuple[int, int]], Labels]]] = []
    labels: dict[str, TaskLabels] = {}
    if options.boxes:
        objects = read_objects(options.boxes)
        readers.append({stem: partial(read_boxes, found, options.boxes, stem) for stem, found in objects.items()})
        labels |= box_labels((*BOXES.values(), CYCLIST_BOX))
    if options.lanes:
        objects = read_objects(options.lanes)
        readers.append({stem: partial(read_lanes, found, options.lanes, stem) for stem, found in objects.items()})
        labels |= mask_labels("seg_lane", [NONE_OR_OTHER_MARKING])
    if options.masks:
        masks = {stem.removesuffix(MASK_SUFFIX): path for stem, path in pictures_by_stem(options.masks).items()}
        readers.append({stem: partial(read_mask, path) for stem, path in masks.items()})
        labels |= mask_labels("seg_default", VALUES.values())
    if not readers:
        raise DataError(f"{options.images}: pictures alone; give --boxes, --lanes or --masks, too")
    stems = sorted(set(pictures).intersection(*readers))
    problems = [
        f"{options.images}: the picture {stem} is not there, though labelled"
        for stem in sorted(set().union(*readers) - set(pictures))
    ]
    entries = [Entry(stem, pictures[stem], partial(read_all, [reader[stem] for reader in readers])) for stem in stems]
    lacking = len(pictures) - len(stems)
    left_out = f"{lacking} pictures left out, without some of the labels asked for" if lacking else ""
    return ForeignSet(labels, entries, problems, left_out)


def read_all(readers: Iterable[Callable[[tuple[int, int]], Labels]], hw: tuple[int, int]) -> Labels:
    """What all readers have for a picture."""
    labels = Labels()
    for read in readers:
        found = read(hw)
        labels.boxes |= found.boxes
        labels.masks |= found.masks
    return labels


def read_objects(path: Path) -> Objects:
    """The labels of every picture: of one file, or of a folder of them. DataError where it is not Scalabel's format."""
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: holds no .json files")
    objects: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            for frame in frames_of(content):
                stem = Path(str(frame["name"])).stem
                if stem in objects:
                    raise DataError(f"{file}: {stem} is labelled twice")
                objects[stem] = list(frame["labels"] or [])
        except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{file}: is not in BDD100K's format ({error!r})") from None
    return objects


def frames_of(content: Any) -> list[dict[str, Any]]:
    """Pictures with `name` and `labels`: a list of them, an object with `frames`, or, in the oldest release, a file for
    each picture whose single frame has `objects`.
    """
    if isinstance(content, dict) and "name" in content:
        labels = content.get("labels")
        if labels is None:
            labels = [entry for frame in content["frames"] for entry in frame["objects"]]
        return [{"name": content["name"], "labels": labels}]
    frames = content["frames"] if isinstance(content, dict) else content
    return [{"name": frame["name"], "labels": frame.get("labels")} for frame in frames]


def read_boxes(objects: list[dict[str, Any]], path: Path, stem: str, hw: tuple[int, int]) -> Labels:
    """The boxes of one picture."""
    labels = Labels({task: [] for task, _ in (*BOXES.values(), CYCLIST_BOX)})
    riders: dict[str, list[Corners]] = {name: [] for name in RIDERS.values()}
    for entry in objects:
        box, name = entry.get("box2d"), str(entry.get("category", ""))
        if box is None:
            continue  # files of the older release hold lanes and drivable areas, too
        where = f"{path}: {stem}: {name}"
        try:
            corners = checked_box([box[edge] for edge in ("x1", "y1", "x2", "y2")], hw, where)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: box2d {box} needs numbers x1, y1, x2, y2") from None
        if name in RIDERS:
            riders[RIDERS[name]].append(corners)
        elif name in BOXES:
            crowd = bool((entry.get("attributes") or {}).get("crowd", False))
            labels.add_box(BOXES[name], corners, ignore=crowd or name in UNSURE)
        else:
            raise DataError(f"{path}: {stem}: '{name}' is none of BDD100K's classes")
    add_riders(labels, riders["rider"], riders["bicycle"], riders["motorcycle"])
    return labels


def read_lanes(objects: list[dict[str, Any]], path: Path, stem: str, hw: tuple[int, int]) -> Labels:
    """The mask of one picture's markings: crosswalks first, lines over them."""
    mask = np.full(hw, NONE_OR_OTHER_MARKING, np.uint8)
    width = max(1, round(LANE_WIDTH * hw[0]))
    drawn = [(kind_of(entry, path, stem), entry) for entry in objects if is_lane(entry)]
    for kind, entry in sorted(drawn, key=lambda pair: -pair[0]):
        if kind == NO_LINE:
            continue
        for line in lines_of(entry):
            vertices, types, closed = line_of(line, f"{path}: {stem}")
            points = np.rint(flattened(vertices, types) * (1 << SHIFT)).astype(np.int32)
            if closed:
                cv2.fillPoly(mask, [points], kind, cv2.LINE_8, SHIFT)
            cv2.polylines(mask, [points], closed, kind, width, cv2.LINE_8, SHIFT)
    return Labels(masks={"seg_lane": mask})


def is_lane(entry: dict[str, Any]) -> bool:
    """Whether an object is a marking: by its category, or in the older release by its attributes."""
    category = str(entry.get("category", ""))
    return category in (*LINES, "crosswalk", "road curb") or category.split("/")[0] == "lane"


def kind_of(entry: dict[str, Any], path: Path, stem: str) -> int:
    """seg_lane's class of a marking."""
    attributes = entry.get("attributes") or {}
    category = str(entry["category"])
    if category.split("/")[0] == "lane":
        category = str(attributes.get("laneTypes") or attributes.get("laneType") or category.partition("/")[2])
    if category in ("crosswalk", "road curb"):
        return OTHER_MARKING if category == "crosswalk" else NO_LINE
    style = str(attributes.get("style") or attributes.get("laneStyle") or "none")
    if category not in LINES or style not in STYLES:
        raise DataError(f"{path}: {stem}: a lane of type '{category}', style '{style}', is none of BDD100K's")
    direction = str(attributes.get("direction") or attributes.get("laneDirection"))
    return OTHER_MARKING if direction == ACROSS else STYLES[style]


def lines_of(entry: dict[str, Any]) -> list[Any]:
    """The polylines of a marking; the older release has one, a list of [x, y, letter]."""
    lines = entry.get("poly2d") or []
    if isinstance(lines, list) and lines and isinstance(lines[0], list):
        letters = "".join(str(point[-1]) for point in lines)
        return [{"vertices": [point[:2] for point in lines], "types": letters}]
    return list(lines)


def line_of(line: Any, where: str) -> tuple[NDArray[np.float64], str, bool]:
    """Points (n, 2), a letter for each, whether the line is closed. DataError where these are not there."""
    try:
        vertices, types = np.array(line["vertices"], np.float64).reshape(-1, 2), str(line["types"])
        closed = bool(line.get("closed", False))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: a lane is no polyline ({error})") from None
    if len(vertices) != len(types) or len(vertices) < 2:
        raise DataError(f"{where}: a lane has {len(vertices)} vertices and {len(types)} types")
    return vertices, types, closed


def flattened(vertices: NDArray[np.float64], types: str) -> NDArray[np.float64]:
    """Points (n, 2) of a line in which three vertices of type C are a cubic Bezier curve's control points and end."""
    points = [vertices[0]]
    index = 1
    while index < len(vertices):
        if types[index] == "C" and index + 2 < len(vertices):
            t = np.linspace(0, 1, CURVE_POINTS + 1)[1:, None]
            a, (b, c, d) = points[-1], vertices[index : index + 3]
            points += list((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)
            index += 3
        else:
            points.append(vertices[index])
            index += 1
    return np.array(points)


def read_mask(path: Path, hw: tuple[int, int]) -> Labels:
    """The segmentation of one picture."""
    pixels = read_pixels(path, hw)
    if pixels.ndim != 2:
        raise DataError(f"{path}: is a colour picture; give sem_seg/masks, whose pixels are train ids")
    return Labels(masks={"seg_default": look_up(pixels, VALUES, path)})
