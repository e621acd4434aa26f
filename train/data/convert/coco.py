"""Generic COCO JSON: boxes of the categories that `--map` gives a class; crowds are ignored."""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from runtime.files import distinct_stems
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
        listed = Counter(entry["id"] for entry in content["images"])
        annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for entry in content["annotations"]:
            annotations[entry["image_id"]].append(entry)
        files = {number: Path(str(entry["file_name"])) for number, entry in images.items()}
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: is not in COCO's format ({error!r})") from None
    by_name = read_places(options.map, list(names.values()), path)
    places = {number: by_name[name] for number, name in names.items() if name in by_name}
    problems = [f"{path}: image_id {number} is not among the images" for number in annotations if number not in images]
    problems += [f"{path}: several images have the id {number}" for number, count in listed.items() if count > 1]
    twice = {file for file, count in Counter(files.values()).items() if count > 1}
    problems += [f"{path}: several images have the file_name {file}" for file in sorted(twice)]
    stems, entries = unique_stems(set(files.values())), []
    for number, file in files.items():
        if listed[number] > 1 or file in twice:
            continue  # no one knows which annotations are whose
        if not (options.images / file).is_file():
            problems.append(f"{options.images / file}: listed in {path.name}, but not there")
            continue
        reader = partial(read, images[number], annotations[number], places, names, path)
        entries.append(Entry(stems[file], options.images / file, reader))
    return ForeignSet(box_labels(places.values()), entries, problems)


def unique_stems(files: Collection[Path]) -> dict[Path, str]:
    """A name for every picture: its stem, where two are equal with its folders, then with its suffix, and numbered
    where they are equal still.
    """
    ways: list[Callable[[Path], str]] = [
        lambda file: file.stem,
        lambda file: "_".join(file.with_suffix("").parts),
        lambda file: "_".join(file.parts).replace(".", "_"),
    ]
    for name_of in ways:
        stems = {file: name_of(file) for file in sorted(files)}
        if len(set(stems.values())) == len(stems):
            break
    return dict(zip(stems, distinct_stems(stems.values()), strict=True))


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
