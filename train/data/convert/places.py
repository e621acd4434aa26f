"""`--map NAME=TASK/CLASS`: which of the project's classes a category of a generic data set is."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from train.data.classes import DETECTION_CLASSES
from train.data.convert.labels import LIGHT_BOX, PERSON_BOX, VEHICLE_BOX, Place
from train.data.errors import DataError

NOTHING = "none"
# Names of COCO, VOC and KITTI that mean one of the project's classes. A bicycle, ridden or not, is no cyclist.
KNOWN: dict[str, Place | None] = {
    **dict.fromkeys(("car", "bus", "truck", "van", "tram"), VEHICLE_BOX),
    **dict.fromkeys(("person", "pedestrian"), PERSON_BOX),
    "traffic light": LIGHT_BOX,
}


def add_map_argument(parser: argparse.ArgumentParser) -> None:
    """The option, and what it means."""
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=TASK/CLASS",
        help="a category of the set, and the class that it is, as 'bus=det_vehicle_sign/whole vehicle'; "
        f"NAME={NOTHING} leaves it out. Repeat it for every category; without any: {', '.join(KNOWN)} as expected",
    )


def read_places(texts: Sequence[str], present: Collection[str], where: Path) -> dict[str, Place]:
    """The class of each of the categories `present` that has one. What a set does not have it does not label either.

    DataError for what is no mapping, for one of a category that `where` does not have, and if none has a class.
    """
    mapping = _read_map(texts, present, where) if texts else KNOWN
    places = {name: place for name in present if (place := mapping.get(name))}
    if not places:
        raise DataError(f"{where}: none of its categories ({', '.join(present)}) has a class; give --map")
    return places


def _read_map(texts: Sequence[str], present: Collection[str], where: Path) -> Mapping[str, Place | None]:
    """What `--map` says, None for what is to be left out."""
    places: dict[str, Place | None] = {}
    for text in texts:
        name, equals, target = text.partition("=")
        task, _, of = target.partition("/")
        if equals and target == NOTHING:
            places[name] = None
        elif equals and of in DETECTION_CLASSES.get(task, ()):
            places[name] = (task, DETECTION_CLASSES[task].index(of))
        else:
            known = ", ".join(f"{task}/{of}" for task, names in DETECTION_CLASSES.items() for of in names)
            raise DataError(f"--map {text}: give NAME=TASK/CLASS, with one of {known}, or NAME={NOTHING}")
        if name not in present:
            raise DataError(f"--map {text}: {where} has no category '{name}', but {', '.join(present)}")
    return places
