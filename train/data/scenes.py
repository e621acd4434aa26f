"""Embedded road scenes: picture and labels for all six tasks, drawn from a seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.data.camera import Colour
from train.data.canvas import WHOLE, Canvas, Thing
from train.data.classes import DETECTION_CLASSES, IGNORE, LANE, NO_LINE
from train.data.errors import DataError
from train.data.layout import plan_camera, plan_people, plan_roadside, plan_traffic
from train.data.road import draw_ground, draw_markings, plan_road
from train.data.samples import Boxes, Sample
from train.data.scenery import draw_sky, draw_skyline
from train.data.weather import apply_weather, plan_weather

Box = tuple[int, int, int, int, int]

SOURCE_SIZES = ((720, 1280), (940, 1824), (1080, 1920), (1080, 2280))
LEAST_SEEN = 0.4  # share of an object's pixels that must not be hidden for a box
LEAST_SIDES = (0.0085, 0.017)  # shorter and longer side of the smallest box, as shares of the picture's height


@dataclass(frozen=True)
class Scene:
    """Picture (H, W, 3) uint8 RGB; per detection task boxes (x1, y1, x2, y2, class), x2 and y2 exclusive; per
    segmentation task a mask (H, W) uint8.

    `ignored`: boxes of what is seen, but mostly hidden or tiny.
    """

    image: NDArray[np.uint8]
    boxes: dict[str, list[Box]]
    ignored: dict[str, list[Box]]
    masks: dict[str, NDArray[np.uint8]]
    ignore: int = IGNORE


def render_scene(seed: int, source_hw: tuple[int, int]) -> Scene:
    """The scene of that seed at the size (h, w); the same bytes for the same arguments. DataError on a size under 240 x
    320.
    """
    if source_hw[0] < 240 or source_hw[1] < 320:
        raise DataError(f"source_hw {source_hw}: embedded scenes need at least 240 x 320 pixels; give a larger size")
    rng = np.random.Generator(np.random.PCG64(seed))
    camera = plan_camera(rng, source_hw)
    canvas = Canvas(camera)
    urban = bool(rng.random() < 0.68)
    road, weather = plan_road(rng, urban), plan_weather(rng)
    draw_sky(canvas, rng, weather.sky, weather.cloudiness)
    draw_skyline(canvas, rng, urban)
    grey = 62 + int(rng.integers(44)) - (14 if weather.rain else 0)
    asphalt: Colour = (grey, grey + int(rng.integers(-3, 4)), grey + int(rng.integers(0, 7)))
    draw_ground(canvas, rng, road, asphalt)
    draw_markings(canvas, rng, road)
    jobs = [
        *plan_roadside(canvas, rng, road, weather),
        *plan_traffic(canvas, rng, road, weather),
        *plan_people(canvas, rng, road, weather),
    ]
    for job in sorted(jobs, key=lambda job: -job.z):
        job.paint()
    masks = _masks(canvas)
    boxes, ignored = _boxes(canvas)
    return Scene(apply_weather(canvas, rng, weather), boxes, ignored, masks)


def _masks(canvas: Canvas) -> dict[str, NDArray[np.uint8]]:
    labels = np.array([surface.label for surface in canvas.surfaces], np.uint8)
    lanes = np.array([surface.lane if surface.label == LANE else NO_LINE for surface in canvas.surfaces], np.uint8)
    return {"seg_default": labels[canvas.numbers], "seg_lane": lanes[canvas.numbers]}


def _boxes(canvas: Canvas) -> tuple[dict[str, list[Box]], dict[str, list[Box]]]:
    """Boxes to be found, and those to be ignored."""
    clear: dict[str, list[Box]] = {task: [] for task in DETECTION_CLASSES}
    ignored: dict[str, list[Box]] = {task: [] for task in DETECTION_CLASSES}
    for thing in canvas.things:
        for part, (task, index) in ((None, thing.kind), *thing.parts.items()):
            seen = canvas.seen(thing, part)
            count = int(np.count_nonzero(seen))
            if count == 0:
                continue
            box = _around(thing, seen)
            enough = count >= LEAST_SEEN * thing.painted[WHOLE if part is None else part]
            (clear if enough and _is_large(box, canvas.camera.rows) else ignored)[task].append((*box, index))
    return clear, ignored


def _around(thing: Thing, seen: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    left, top = thing.extent[:2]
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _is_large(box: tuple[int, int, int, int], picture_rows: int) -> bool:
    shorter, longer = sorted((box[2] - box[0], box[3] - box[1]))
    return shorter >= LEAST_SIDES[0] * picture_rows and longer >= LEAST_SIDES[1] * picture_rows


def render_sample(seed: int, source_hw: tuple[int, int]) -> Sample:
    """`render_scene` as a sample of a data set."""
    scene = render_scene(seed, source_hw)
    boxes = {
        task: Boxes.of([(*box, False) for box in scene.boxes[task]] + [(*box, True) for box in scene.ignored[task]])
        for task in scene.boxes
    }
    return Sample(scene.image, boxes, scene.masks)
