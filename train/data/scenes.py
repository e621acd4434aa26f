"""Embedded road scenes: picture and labels for all six tasks, drawn from a seed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.data.camera import Camera, Colour
from train.data.canvas import WHOLE, Canvas, Thing
from train.data.classes import DETECTION_CLASSES, IGNORE, LANE, NO_LINE
from train.data.errors import DataError
from train.data.people import draw_cyclist, draw_pedestrian
from train.data.road import FAR, Road, draw_ground, draw_markings, plan_road
from train.data.scenery import draw_building, draw_fence, draw_hedge, draw_lamp_post, draw_sky, draw_skyline, draw_tree
from train.data.samples import Boxes, Sample
from train.data.signals import draw_gantry, draw_sign, draw_traffic_light
from train.data.vehicles import MODELS, PAINTS, Pose, draw_vehicle
from train.data.weather import Weather, apply_weather, plan_weather

Random = np.random.Generator
Box = tuple[int, int, int, int, int]

SOURCE_SIZES = ((720, 1280), (940, 1824), (1080, 1920), (1080, 2280))
LEAST_SEEN = 0.4  # share of an object's pixels that must not be hidden for a box
LEAST_SIDES = (0.0085, 0.017)  # shorter and longer side of the smallest box, as shares of the picture's height


@dataclass(frozen=True)
class Scene:
    """Picture (H, W, 3) uint8 RGB; per detection task boxes (x1, y1, x2, y2, class), x2 and y2 exclusive; per segmentation task a mask (H, W) uint8.

    `ignored`: boxes of what is seen, but mostly hidden or tiny.
    """

    image: NDArray[np.uint8]
    boxes: dict[str, list[Box]]
    ignored: dict[str, list[Box]]
    masks: dict[str, NDArray[np.uint8]]
    ignore: int = IGNORE


@dataclass(frozen=True)
class _Job:
    """Something to paint, at the distance that decides when."""

    z: float
    paint: Callable[[], None]


def render_scene(seed: int, source_hw: tuple[int, int]) -> Scene:
    """The scene of that seed at the size (h, w); the same bytes for the same arguments. DataError on a size under 240 x 320."""
    if source_hw[0] < 240 or source_hw[1] < 320:
        raise DataError(f"source_hw {source_hw}: embedded scenes need at least 240 x 320 pixels; give a larger size")
    rng = np.random.Generator(np.random.PCG64(seed))
    camera = _plan_camera(rng, source_hw)
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
        *_plan_roadside(canvas, rng, road, weather),
        *_plan_traffic(canvas, rng, road, weather),
        *_plan_people(canvas, rng, road, weather),
    ]
    for job in sorted(jobs, key=lambda job: -job.z):
        job.paint()
    masks = _masks(canvas)
    boxes, ignored = _boxes(canvas)
    return Scene(apply_weather(canvas, rng, weather), boxes, ignored, masks)


def _plan_camera(rng: Random, source_hw: tuple[int, int]) -> Camera:
    rows, columns = source_hw
    focal = min(columns, 2 * rows) * (0.78 + 0.34 * rng.random())
    centre = columns * (0.47 + 0.06 * rng.random())
    return Camera(rows, columns, focal, centre, rows * (0.42 + 0.1 * rng.random()), 1.25 + 0.65 * rng.random())


def _plan_roadside(canvas: Canvas, rng: Random, road: Road, weather: Weather) -> list[_Job]:
    """Buildings, trees, fences, lamp posts, signs and lights."""
    jobs: list[_Job] = []
    lit = 0.35 if weather.light < 62 else 0.0
    snowy = weather.snow > 0
    for side in (-1, 1):
        edge = road.right if side > 0 else road.left
        pavement = road.sidewalk
        style = rng.random()
        z = 3.0 + 6 * rng.random()
        while road.urban and z < 110:
            length = 9 + 18 * rng.random()
            if (
                not road.in_junction(z)
                and not road.in_junction(z + length)
                and not _spans(road, z, z + length)
                and rng.random() < 0.86
            ):
                set_back = pavement + 0.5 + (5 * rng.random() if style < 0.5 else 0.4)
                jobs.append(_building(canvas, rng, road, side, set_back, z, z + length, lit))
            z += length + (0.5 if rng.random() < 0.7 else 7 * rng.random())
        for _ in range(int(rng.integers(2, 9) if road.urban else rng.integers(10, 24))):
            z = 8 + 95 * rng.random()
            if road.in_junction(z):
                continue
            away = pavement * 0.85 if road.urban else 2.0 + 22 * rng.random()
            x = road.at(edge + side * away, z)
            tall = road.urban or rng.random() < 0.75
            jobs.append(_tree(canvas, rng, x, z, snowy) if tall else _hedge(canvas, rng, x, z))
        if rng.random() < (0.4 if road.urban else 0.7):
            jobs += _fences(canvas, rng, road, side)
        if rng.random() < 0.75:
            jobs += _posts(canvas, rng, road, side, lit > 0)
        for _ in range(int(rng.integers(0, 3) if road.urban else rng.integers(0, 4))):
            z = 9 + 34 * rng.random()
            if not road.in_junction(z):
                jobs.append(_sign(canvas, rng, road.at(edge + side * (0.5 + 0.4 * rng.random()), z), z))
    jobs += _plan_lights(canvas, rng, road)
    if not road.urban and rng.random() < 0.35:
        z = 26 + 34 * rng.random()
        left, right = road.at(road.left - 0.8, z), road.at(road.right + 0.8, z)
        jobs.append(_Job(z, lambda: draw_gantry(canvas, rng, left, right, z)))
    return jobs


def _spans(road: Road, near: float, far: float) -> bool:
    return road.junction is not None and near < road.junction < far


def _building(
    canvas: Canvas, rng: Random, road: Road, side: int, away: float, near: float, far: float, lit: float
) -> _Job:
    return _Job(far, lambda: draw_building(canvas, rng, road, side, away, near, far, lit))


def _tree(canvas: Canvas, rng: Random, x: float, z: float, snowy: bool) -> _Job:
    return _Job(z, lambda: draw_tree(canvas, rng, x, z, snowy))


def _hedge(canvas: Canvas, rng: Random, x: float, z: float) -> _Job:
    return _Job(z, lambda: draw_hedge(canvas, rng, x, z))


def _sign(canvas: Canvas, rng: Random, x: float, z: float) -> _Job:
    return _Job(z, lambda: draw_sign(canvas, rng, x, z))


def _fences(canvas: Canvas, rng: Random, road: Road, side: int) -> list[_Job]:
    rail = not road.urban
    x = (road.right if side > 0 else road.left) + side * (0.4 if rail else 0.15)
    near = max(3.5, 20 * rng.random())

    def piece(z: float) -> _Job:
        return _Job(z + 8, lambda: draw_fence(canvas, road, x, z, z + 8, rail))

    starts = [near + 8.0 * index for index in range(int((40 if road.urban else 90) / 8))]
    return [piece(z) for z in starts if not road.in_junction(z) and not road.in_junction(z + 8)]


def _posts(canvas: Canvas, rng: Random, road: Road, side: int, lit: bool) -> list[_Job]:
    edge = (road.right if side > 0 else road.left) + side * 0.7
    start = 7 + 18 * rng.random()

    def post(z: float) -> _Job:
        return _Job(z, lambda: draw_lamp_post(canvas, road.at(edge, z), z, side, lit))

    return [post(start + 24.0 * index) for index in range(4) if not road.in_junction(start + 24.0 * index)]


def _plan_lights(canvas: Canvas, rng: Random, road: Road) -> list[_Job]:
    """All lights of a junction that face the camera show the same colour."""
    if road.junction is None or rng.random() < 0.2:
        return []
    state = (0, 0, 1, 2, 2)[int(rng.integers(5))]
    far = road.junction + road.crossing + 1.2

    def light(x: float, z: float, arm: float) -> _Job:
        return _Job(z, lambda: draw_traffic_light(canvas, rng, road.at(x, z), z, state=state, arm=arm))

    jobs = [light(road.right + 0.6, max(6.0, road.junction - 6), 0.0)]
    if rng.random() < 0.6:
        jobs.append(light(road.left - 0.6, max(6.0, road.junction - 6), 0.0))
    if rng.random() < 0.7:
        jobs.append(light(road.right + 0.7, far, -(2.0 + 4.0 * rng.random())))
    if rng.random() < 0.6:
        jobs.append(light(road.left - 0.7, far, 0.0))
    return jobs


def _plan_traffic(canvas: Canvas, rng: Random, road: Road, weather: Weather) -> list[_Job]:
    """Vehicles in their lanes, parked at the kerb, and crossing at the junction."""
    jobs: list[_Job] = []
    density = 0.35 + 0.6 * rng.random()
    for index, direction in enumerate(road.directions):
        middle = (road.borders[index] + road.borders[index + 1]) / 2
        own = road.borders[index] < 0 < road.borders[index + 1]
        z = (11.0 if own else 5.5) + 12 * rng.random()
        while z < 85:
            name = _pick_model(rng)
            z += MODELS[name].length / 2
            if rng.random() < density and not (
                road.junction is not None and road.junction - 2 < z < road.junction + road.crossing
            ):
                ahead_x, ahead_z = road.heading(z)
                place = Pose(
                    road.at(middle + 0.7 * (rng.random() - 0.5), z), z, (ahead_x * direction, ahead_z * direction)
                )
                jobs.append(_vehicle(canvas, rng, name, place, weather))
            z += MODELS[name].length / 2 + 4 + 22 * rng.random() ** 2
    if road.urban:
        for side in (-1, 1):
            if rng.random() < 0.5:
                jobs += _parked(canvas, rng, road, side, weather)
    if road.junction is not None:
        for lane in (0.27, 0.73):
            if rng.random() < 0.6:
                forward = (1.0, 0.0) if lane < 0.5 else (-1.0, 0.0)
                z = road.junction + road.crossing * lane
                jobs.append(_vehicle(canvas, rng, _pick_model(rng), Pose(-14 + 28 * rng.random(), z, forward), weather))
    return jobs


def _parked(canvas: Canvas, rng: Random, road: Road, side: int, weather: Weather) -> list[_Job]:
    jobs = []
    x = (road.right + 1.15) if side > 0 else (road.left - 1.15)
    z = 6 + 10 * rng.random()
    while z < 60:
        if not road.in_junction(z - 3) and not road.in_junction(z + 3) and rng.random() < 0.6:
            ahead_x, ahead_z = road.heading(z)
            jobs.append(
                _vehicle(
                    canvas,
                    rng,
                    ("sedan", "hatchback", "suv", "van")[int(rng.integers(4))],
                    Pose(road.at(x, z), z, (ahead_x * side, ahead_z * side)),
                    None,
                )
            )
        z += 6.2 + 3 * rng.random()
    return jobs


def _vehicle(canvas: Canvas, rng: Random, name: str, pose: Pose, weather: Weather | None) -> _Job:
    lamps = weather is not None and (weather.lamps or rng.random() < 0.15)
    braking = weather is not None and rng.random() < 0.35
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    return _Job(pose.z, lambda: draw_vehicle(canvas, name, pose, paint, lamps=lamps, braking=braking))


def _pick_model(rng: Random) -> str:
    names = ("sedan", "sedan", "sedan", "hatchback", "hatchback", "suv", "suv", "van", "truck", "bus")
    return names[int(rng.integers(len(names)))]


def _plan_people(canvas: Canvas, rng: Random, road: Road, weather: Weather) -> list[_Job]:
    """Walkers on the sidewalks and crosswalks, cyclists along the road and across it."""
    jobs: list[_Job] = []
    wet = weather.rain > 0.2

    def walker(x: float, z: float) -> _Job:
        umbrella = wet and rng.random() < 0.6
        return _Job(z, lambda: draw_pedestrian(canvas, rng, x, z, umbrella=umbrella))

    def rider(x: float, z: float, crossing: bool) -> _Job:
        return _Job(z, lambda: draw_cyclist(canvas, rng, x, z, crossing=crossing, lamps=weather.lamps))

    for side in (-1, 1):
        edge = road.right if side > 0 else road.left
        for _ in range(int(rng.integers(0, 7)) if road.urban else int(rng.integers(0, 2))):
            z = 6 + 30 * rng.random()
            jobs.append(walker(road.at(edge + side * (0.4 + max(1.0, road.sidewalk - 0.6) * rng.random()), z), z))
        for _ in range(int(rng.integers(0, 3))):
            z = 7 + 26 * rng.random()
            jobs.append(rider(road.at(edge - side * (0.3 + 0.6 * rng.random()), z), z, crossing=False))
    if road.junction is not None:
        for z in (road.junction - 3.0, road.junction + road.crossing + 2.5):
            for _ in range(int(rng.integers(0, 4))):
                place = road.at(road.left + (road.right - road.left) * rng.random(), z)
                jobs.append(walker(place, z + 1.4 * (rng.random() - 0.5)))
        if rng.random() < 0.6:
            jobs.append(rider(-8 + 16 * rng.random(), road.junction + road.crossing * rng.random(), crossing=True))
    elif rng.random() < 0.3:
        z = 12 + 20 * rng.random()
        jobs.append(rider(road.at(road.left + (road.right - road.left) * rng.random(), z), z, crossing=True))
    return jobs


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
