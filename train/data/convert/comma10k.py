"""comma10k: the lane markings of its masks, which have one colour.

Its rules leave arrows and crosswalks out, so a line is solid or dashed, and its road may hold other markings. It does
not tell which, and neither do the converted masks.
"""

import argparse
from pathlib import Path

from train.data.classes import NO_LINE
from train.data.convert.labels import (
    ANY_LINE,
    NONE_OR_OTHER_MARKING,
    ForeignSet,
    Labels,
    mask_labels,
    paired,
    pictures_by_stem,
)
from train.data.convert.masks import Color, indices_of, look_up, read_pixels

HELP = "comma10k: lane markings"
COLORS: dict[Color, int] = {
    (64, 32, 32): NONE_OR_OTHER_MARKING,  # road
    (255, 0, 0): ANY_LINE,
    (128, 128, 96): NO_LINE,  # undrivable
    (0, 255, 102): NO_LINE,  # movable
    (204, 0, 255): NO_LINE,  # own car
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this kind needs."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="its imgs/")
    parser.add_argument("--masks", type=Path, required=True, metavar="DIR", help="its masks/, named like the pictures")


def open_set(options: argparse.Namespace) -> ForeignSet:
    """The pairs of pictures and masks."""
    pictures, masks = pictures_by_stem(options.images), pictures_by_stem(options.masks)
    entries, problems = paired(pictures, masks, read)
    return ForeignSet(mask_labels("seg_lane", COLORS.values()), entries, problems)


def read(path: Path, hw: tuple[int, int]) -> Labels:
    """The mask of one picture."""
    indices = indices_of(read_pixels(path, hw), list(COLORS), path)
    return Labels(masks={"seg_lane": look_up(indices, dict(enumerate(COLORS.values())), path)})
