"""`--map NAME=TASK/CLASS`: which of the project's classes a category of a generic data set is."""

import argparse
from collections.abc import Mapping

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


def read_places(texts: list[str]) -> Mapping[str, Place | None]:
    """The class by category, None for those to be left out. DataError for what is no mapping."""
    if not texts:
        return KNOWN
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
    return places
