"""CamVid: masks of 11 classes as indices (SegNet's split), or of 32 as colours, as it was published.

Boxes are those of connected components: what touches shares one. Index masks call a traffic light a sign: such a
component is a sign, and, as a light, ignored. They paint lane markings as road, so their road may be either.
"""

import argparse
from pathlib import Path

import numpy as np

from train.data.classes import (
    BUILDING,
    CYCLIST,
    FENCE,
    IGNORE,
    LANE,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIDEWALK,
    SIGN,
    SKY,
    VEGETATION,
    VEHICLE,
)
from train.data.convert.labels import (
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
from train.data.convert.masks import Color, component_rows, indices_of, look_up, read_pixels

HELP = "CamVid: masks; boxes of vehicles, pedestrians, cyclists, signs by connected components"
COLOR_SUFFIX = "_L"  # of the published masks' names

# SegNet's indices, in their order: seg_default's class, and what a component is a box of.
INDICES: list[tuple[int, Place | None]] = [
    (SKY, None),
    (BUILDING, None),
    (POLE, None),
    (ROAD_OR_MARKING, None),
    (SIDEWALK, None),
    (VEGETATION, None),
    (SIGN, SIGN_BOX),
    (FENCE, None),
    (VEHICLE, VEHICLE_BOX),
    (PEDESTRIAN, PERSON_BOX),
    (CYCLIST, CYCLIST_BOX),
    (IGNORE, None),
]
# The published colours (RGB): the same.
COLORS: dict[Color, tuple[int, Place | None]] = {
    (64, 128, 64): (IGNORE, None),  # animal
    (192, 0, 128): (BUILDING, None),  # archway
    (0, 128, 192): (CYCLIST, CYCLIST_BOX),
    (0, 128, 64): (BUILDING, None),  # bridge
    (128, 0, 0): (BUILDING, None),
    (64, 0, 128): (VEHICLE, VEHICLE_BOX),  # car
    (64, 0, 192): (IGNORE, None),  # cart, luggage, pram
    (192, 128, 64): (PEDESTRIAN, PERSON_BOX),  # child
    (192, 192, 128): (POLE, None),
    (64, 64, 128): (FENCE, None),
    (128, 0, 192): (LANE, None),  # lane markings, drivable
    (192, 0, 64): (LANE, None),  # lane markings, not drivable
    (128, 128, 64): (IGNORE, None),  # text, misc.
    (192, 0, 192): (IGNORE, None),  # motorcycle, scooter
    (128, 64, 64): (IGNORE, None),  # other moving
    (64, 192, 128): (SIDEWALK, None),  # parking block
    (64, 64, 0): (PEDESTRIAN, PERSON_BOX),
    (128, 64, 128): (ROAD, None),
    (128, 128, 192): (ROAD, None),  # shoulder
    (0, 0, 192): (SIDEWALK, None),
    (192, 128, 128): (SIGN, SIGN_BOX),
    (128, 128, 128): (SKY, None),
    (64, 128, 192): (VEHICLE, VEHICLE_BOX),  # SUV, pickup
    (0, 0, 64): (IGNORE, None),  # traffic cone
    (0, 64, 64): (SIGN, LIGHT_BOX),
    (192, 64, 128): (VEHICLE, VEHICLE_BOX),  # train
    (128, 128, 0): (VEGETATION, None),
    (192, 128, 192): (VEHICLE, VEHICLE_BOX),  # truck, bus
    (64, 0, 64): (BUILDING, None),  # tunnel
    (192, 192, 0): (VEGETATION, None),
    (0, 0, 0): (IGNORE, None),
    (64, 192, 0): (BUILDING, None),  # wall
}
PLACES = (CYCLIST_BOX, LIGHT_BOX, PERSON_BOX, SIGN_BOX, VEHICLE_BOX)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this kind needs."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="its pictures")
    parser.add_argument("--masks", type=Path, required=True, metavar="DIR", help="its masks, named like the pictures")


def open_set(options: argparse.Namespace) -> ForeignSet:
    """The pairs of pictures and masks."""
    pictures = pictures_by_stem(options.images)
    masks = {stem.removesuffix(COLOR_SUFFIX): path for stem, path in pictures_by_stem(options.masks).items()}
    entries, problems = paired(pictures, masks, read)
    return ForeignSet(box_labels(PLACES) | mask_labels("seg_default", [ROAD_OR_MARKING]), entries, problems)


def read(path: Path, hw: tuple[int, int]) -> Labels:
    """Mask and boxes of one picture."""
    pixels = read_pixels(path, hw)
    if pixels.ndim == 2:
        kinds, indices = INDICES, pixels
    else:
        kinds, indices = list(COLORS.values()), indices_of(pixels, list(COLORS), path)
    labels = Labels({task: [] for task, _ in PLACES})
    labels.masks["seg_default"] = look_up(indices, {index: value for index, (value, _) in enumerate(kinds)}, path)
    for task, number in PLACES:
        area = np.isin(indices, [index for index, kind in enumerate(kinds) if kind[1] == (task, number)])
        labels.boxes[task] += component_rows(area, number)
    if kinds is INDICES:
        signs = [row for row in labels.boxes[SIGN_BOX[0]] if row[4] == SIGN_BOX[1]]
        labels.boxes[LIGHT_BOX[0]] += [(*row[:4], LIGHT_BOX[1], True) for row in signs]
    return labels
