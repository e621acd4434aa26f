"""What a scene is painted on: the picture, and a map that says for every pixel which surface is seen there.

Everything is painted from far to near into both. All labels (class masks, lane kinds, boxes, hidden parts), the depth
for fog and the lamps at night are then table look-ups by surface number, and therefore always agree with the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.camera import Camera, Colour, Pixels
from train.data.classes import NO_LINE, SKY

WHOLE = -1  # key of the whole object in Thing.painted
GROUND = 0.0  # depth of surfaces that lie on the ground: their depth follows from the row


@dataclass(frozen=True)
class Surface:
    """One surface: class of seg_default, kind of lane marking, depth in metres, grain of its texture, whether it
    shines, part of which object.
    """

    label: int
    lane: int = NO_LINE
    depth: float = GROUND
    grain: int = 8
    shines: bool = False
    part: int = 0


@dataclass
class Thing:
    """An object that gets boxes: (task, class) of the whole, and of its parts by part number; its surfaces are numbered
    first..last.
    """

    kind: tuple[str, int]
    parts: dict[int, tuple[str, int]]
    first: int
    last: int = -1
    extent: tuple[int, int, int, int] = (0, 0, 0, 0)
    painted: dict[int, int] = field(default_factory=dict)


class Canvas:
    """Picture (H, W, 3) uint8 RGB and surface numbers (H, W) uint16; starts as a sky."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.image: NDArray[np.uint8] = np.zeros((camera.rows, camera.columns, 3), np.uint8)
        self.numbers: NDArray[np.uint16] = np.zeros((camera.rows, camera.columns), np.uint16)
        self.surfaces: list[Surface] = [Surface(SKY, depth=1e9, grain=2)]
        self.things: list[Thing] = []
        self.glows: list[tuple[int, int, int, Colour]] = []
        self._extent: list[int] | None = None

    def add(self, surface: Surface) -> int:
        """Number of a new surface."""
        self.surfaces.append(surface)
        return len(self.surfaces) - 1

    def polygon(self, pixels: Pixels, colour: Colour, surface: int | None = None) -> None:
        """Fill one polygon, pixels (N, 2); without a surface only the picture changes (a pattern on what is there)."""
        self.polygons([pixels], colour, surface)

    def polygons(self, shapes: Sequence[Pixels], colour: Colour, surface: int | None = None) -> None:
        """Fill polygons that do not overlap, in one colour."""
        if not shapes:
            return
        cv2.fillPoly(self.image, shapes, colour)
        if surface is not None:
            cv2.fillPoly(self.numbers, shapes, surface)
            for shape in shapes:
                self._reach(shape, 0)

    def line(self, pixels: Pixels, colour: Colour, thickness: int, surface: int | None = None) -> None:
        """An open line through pixels (N, 2)."""
        cv2.polylines(self.image, [pixels], False, colour, thickness)
        if surface is not None:
            cv2.polylines(self.numbers, [pixels], False, surface, thickness)
            self._reach(pixels, thickness)

    def ellipse(
        self, centre: Pixels, axes: tuple[int, int], colour: Colour, surface: int | None = None, thickness: int = -1
    ) -> None:
        """An upright ellipse, half axes in pixels; thickness -1 fills it."""
        point = (int(centre[0]), int(centre[1]))
        cv2.ellipse(self.image, point, axes, 0, 0, 360, colour, thickness)
        if surface is not None:
            cv2.ellipse(self.numbers, point, axes, 0, 0, 360, surface, thickness)
            reach = np.array(
                [[point[0] - axes[0], point[1] - axes[1]], [point[0] + axes[0], point[1] + axes[1]]], np.int32
            )
            self._reach(reach, max(thickness, 0))

    def shade(self, pixels: Pixels, percent: int) -> None:
        """Darken (below 100) or lighten what is inside a polygon: a shadow, dirt, a wet spot."""
        left, top = (max(0, int(value)) for value in pixels.min(axis=0))
        right, bottom = (int(value) + 1 for value in pixels.max(axis=0))
        right, bottom = min(right, self.camera.columns), min(bottom, self.camera.rows)
        if left >= right or top >= bottom:
            return
        inside = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(inside, [pixels - np.array([left, top], np.int32)], 1)
        window = self.image[top:bottom, left:right]
        table = np.minimum(np.arange(256) * percent // 100, 255).astype(np.uint8)
        cv2.copyTo(cv2.LUT(window, table), inside, window)

    def glow(self, centre: Pixels, radius: int, colour: Colour) -> None:
        """A lamp at a pixel: shines at night if nothing was painted over it."""
        self.glows.append((int(centre[0]), int(centre[1]), radius, colour))

    def begin(self, kind: tuple[str, int], parts: dict[int, tuple[str, int]] | None = None) -> Thing:
        """Start an object: surfaces added until `end` belong to it."""
        self._extent = None
        thing = Thing(kind, parts or {}, first=len(self.surfaces))
        self.things.append(thing)
        return thing

    def end(self, thing: Thing) -> None:
        """Close an object: remembers where it was painted and how many pixels each part covers before anything nearer
        hides it.
        """
        thing.last = len(self.surfaces) - 1
        if self._extent is not None:
            left, top, right, bottom = self._extent
            thing.extent = (
                max(0, left),
                max(0, top),
                min(self.camera.columns, right + 1),
                min(self.camera.rows, bottom + 1),
            )
        for part in (None, *thing.parts):
            thing.painted[WHOLE if part is None else part] = int(np.count_nonzero(self.seen(thing, part)))
        self._extent = None

    def seen(self, thing: Thing, part: int | None = None) -> NDArray[np.bool_]:
        """Which pixels of the object's extent show it (or one part of it) now."""
        left, top, right, bottom = thing.extent
        window = self.numbers[top:bottom, left:right] if right > left and bottom > top else self.numbers[:0, :0]
        if part is None:
            return (window >= thing.first) & (window <= thing.last)
        numbers = [n for n in range(thing.first, thing.last + 1) if self.surfaces[n].part == part]
        result = np.zeros(window.shape, np.bool_)
        for number in numbers:
            result |= window == number
        return result

    def _reach(self, pixels: Pixels, margin: int) -> None:
        left, top = (int(value) - margin for value in pixels.min(axis=0))
        right, bottom = (int(value) + margin for value in pixels.max(axis=0))
        if self._extent is None:
            self._extent = [left, top, right, bottom]
        else:
            old = self._extent
            self._extent = [min(old[0], left), min(old[1], top), max(old[2], right), max(old[3], bottom)]
