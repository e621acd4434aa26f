"""Generic Pascal VOC XML: boxes of the names that `--map` gives a class; difficult ones are ignored.

VOC counts pixels from 1 and both edges belong to the box.
"""

import argparse
import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from train.data.convert.labels import (
    ForeignSet,
    Labels,
    Place,
    box_labels,
    checked_box,
    paired,
    pictures_by_stem,
)
from train.data.convert.places import add_map_argument, read_places
from train.data.errors import DataError

HELP = "generic Pascal VOC XML: boxes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this kind needs."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="JPEGImages")
    parser.add_argument("--annotations", type=Path, required=True, metavar="DIR", help="Annotations: XML, same names")
    add_map_argument(parser)


def open_set(options: argparse.Namespace) -> ForeignSet:
    """The pairs of pictures and XML files."""
    pictures = pictures_by_stem(options.images)
    if not options.annotations.is_dir():
        raise DataError(f"{options.annotations}: no such folder")
    files = {path.stem: path for path in sorted(options.annotations.glob("*.xml"))}
    places = read_places(options.map, names_in(files.values()), options.annotations)
    entries, problems = paired(pictures, files, partial(read, places=places))
    return ForeignSet(box_labels(places.values()), entries, problems)


def names_in(files: Iterable[Path]) -> list[str]:
    """The names of all objects. A file that is no XML has none; reading its labels says so."""
    names = set()
    for path in files:
        with contextlib.suppress(OSError, ElementTree.ParseError):
            names |= {name_of(entry) for entry in ElementTree.parse(path).getroot().iter("object")}
    return sorted(names)


def name_of(entry: ElementTree.Element) -> str:
    """An object's category."""
    return (entry.findtext("name") or "").strip()


def read(path: Path, hw: tuple[int, int], places: Mapping[str, Place]) -> Labels:
    """The boxes of one picture."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: is no XML ({error})") from None
    height, width = (float(root.findtext(f"size/{side}") or 0) for side in ("height", "width"))
    if height and width and (height, width) != hw:
        raise DataError(f"{path}: is of {height:g} x {width:g} pixels (h x w), its picture {hw[0]} x {hw[1]}")
    labels = Labels({task: [] for task, _ in places.values()})
    for entry in root.iter("object"):
        name = name_of(entry)
        if name not in places:
            continue
        try:
            x1, y1, x2, y2 = (
                float(entry.findtext(f"bndbox/{edge}") or "") for edge in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            raise DataError(f"{path}: {name}: bndbox needs numbers xmin, ymin, xmax, ymax") from None
        corners = checked_box((x1 - 1, y1 - 1, x2, y2), hw, f"{path}: {name}")
        labels.add_box(places[name], corners, ignore=(entry.findtext("difficult") or "0").strip() == "1")
    return labels
