"""Generic COCO JSON: boxes of the categories that `--map` gives a class; crowds are ignored."""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from train.data.convert.labels import Entry, ForeignSet, Labels, Place, box_labels, checked_box
from train.data.convert.places import add_map_argument, read_places
from train.data.errors import DataError

HELP = "generic COCO JSON: boxes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this kind needs."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="where file_name is looked up")
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="instances_*.json")
    add_map_argument(parser)


def open_set(options: argparse.Namespace) -> ForeignSet:
    """The pictures that the file lists."""
    path = options.annotations
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        images = {entry["id"]: entry for entry in content["images"]}
        annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for entry in content["annotations"]:
            annotations[entry["image_id"]].append(entry)
        files = {number: options.images / str(entry["file_name"]) for number, entry in images.items()}
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: is not in COCO's format ({error!r})") from None
    mapping = read_places(options.map)
    places = {number: place for number, name in names.items() if (place := mapping.get(name))}
    if not places:
        raise DataError(f"{path}: none of its categories ({', '.join(names.values())}) has a class; give --map")
    problems = [f"{path}: image_id {number} is not among the images" for number in annotations if number not in images]
    problems += [f"{file}: listed in {path.name}, but not there" for file in files.values() if not file.is_file()]
    stems = unique_stems(files)
    entries = [
        Entry(stems[number], file, partial(read, images[number], annotations[number], places, names, path))
        for number, file in files.items()
        if file.is_file()
    ]
    return ForeignSet(box_labels(places.values()), entries, problems)


def unique_stems(files: Mapping[Any, Path]) -> dict[Any, str]:
    """A name for every picture: its stem, or with those of its folders where two are equal."""
    stems = {number: file.stem for number, file in files.items()}
    if len(set(stems.values())) < len(stems):
        stems = {number: "_".join(file.with_suffix("").parts[-3:]) for number, file in files.items()}
    return stems


def read(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    places: Mapping[Any, Place],
    names: Mapping[Any, str],
    path: Path,
    hw: tuple[int, int],
) -> Labels:
    """The boxes of one picture."""
    where = f"{path}: {image['file_name']}"
    if "height" in image and (image["height"], image["width"]) != hw:
        raise DataError(f"{where}: is {image['height']} x {image['width']} pixels there, in truth {hw[0]} x {hw[1]}")
    labels = Labels({task: [] for task, _ in places.values()})
    for entry in annotations:
        category = entry.get("category_id")
        if category not in names:
            raise DataError(f"{where}: category_id {category} is not among the categories")
        if category not in places:
            continue
        try:
            x, y, width, height = (float(value) for value in entry["bbox"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: bbox {entry.get('bbox')} must be [x, y, width, height]") from None
        corners = checked_box((x, y, x + width, y + height), hw, f"{where}: {names[category]}")
        labels.add_box(places[category], corners, ignore=bool(entry.get("iscrowd", 0)))
    return labels
