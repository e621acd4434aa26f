"""The layout of a scene: what stands, drives and walks where. Everything becomes a job, painted from far to near."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from train.data.camera import Camera
from train.data.canvas import Canvas
from train.data.people import draw_cyclist, draw_pedestrian
from train.data.road import Road
from train.data.scenery import draw_building, draw_fence, draw_hedge, draw_lamp_post, draw_tree
from train.data.signals import draw_gantry, draw_sign, draw_traffic_light
from train.data.vehicles import MODELS, PAINTS, Pose, draw_vehicle
from train.data.weather import Weather

Random = np.random.Generator


@dataclass(frozen=True)
class Job:
    """Something to paint, at the distance (metres) that decides when."""

    z: float
    paint: Callable[[], None]


def plan_camera(rng: Random, source_hw: tuple[int, int]) -> Camera:
    """A random camera for pictures of that size: horizon around the middle, 1.25 to 1.9 m above the road."""
    rows, columns = source_hw
    focal = min(columns, 2 * rows) * (0.78 + 0.34 * rng.random())
    centre = columns * (0.47 + 0.06 * rng.random())
    return Camera(rows, columns, focal, centre, rows * (0.42 + 0.1 * rng.random()), 1.25 + 0.65 * rng.random())


def plan_roadside(canvas: Canvas, rng: Random, road: Road, weather: Weather) -> list[Job]:
    """Buildings, trees, fences, lamp posts, signs and lights."""
    jobs: list[Job] = []
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
        jobs.append(Job(z, lambda: draw_gantry(canvas, rng, left, right, z)))
    return jobs


def _spans(road: Road, near: float, far: float) -> bool:
    return road.junction is not None and near < road.junction < far


def _building(
    canvas: Canvas, rng: Random, road: Road, side: int, away: float, near: float, far: float, lit: float
) -> Job:
    return Job(far, lambda: draw_building(canvas, rng, road, side, away, near, far, lit))


def _tree(canvas: Canvas, rng: Random, x: float, z: float, snowy: bool) -> Job:
    return Job(z, lambda: draw_tree(canvas, rng, x, z, snowy))


def _hedge(canvas: Canvas, rng: Random, x: float, z: float) -> Job:
    return Job(z, lambda: draw_hedge(canvas, rng, x, z))


def _sign(canvas: Canvas, rng: Random, x: float, z: float) -> Job:
    return Job(z, lambda: draw_sign(canvas, rng, x, z))


def _fences(canvas: Canvas, rng: Random, road: Road, side: int) -> list[Job]:
    rail = not road.urban
    x = (road.right if side > 0 else road.left) + side * (0.4 if rail else 0.15)
    near = max(3.5, 20 * rng.random())

    def piece(z: float) -> Job:
        return Job(z + 8, lambda: draw_fence(canvas, road, x, z, z + 8, rail))

    starts = [near + 8.0 * index for index in range(int((40 if road.urban else 90) / 8))]
    return [piece(z) for z in starts if not road.in_junction(z) and not road.in_junction(z + 8)]


def _posts(canvas: Canvas, rng: Random, road: Road, side: int, lit: bool) -> list[Job]:
    edge = (road.right if side > 0 else road.left) + side * 0.7
    start = 7 + 18 * rng.random()

    def post(z: float) -> Job:
        return Job(z, lambda: draw_lamp_post(canvas, road.at(edge, z), z, side, lit))

    return [post(start + 24.0 * index) for index in range(4) if not road.in_junction(start + 24.0 * index)]


def _plan_lights(canvas: Canvas, rng: Random, road: Road) -> list[Job]:
    """All lights of a junction that face the camera show the same colour."""
    if road.junction is None or rng.random() < 0.2:
        return []
    state = (0, 0, 1, 2, 2)[int(rng.integers(5))]
    far = road.junction + road.crossing + 1.2

    def light(x: float, z: float, arm: float) -> Job:
        return Job(z, lambda: draw_traffic_light(canvas, rng, road.at(x, z), z, state=state, arm=arm))

    jobs = [light(road.right + 0.6, max(6.0, road.junction - 6), 0.0)]
    if rng.random() < 0.6:
        jobs.append(light(road.left - 0.6, max(6.0, road.junction - 6), 0.0))
    if rng.random() < 0.7:
        jobs.append(light(road.right + 0.7, far, -(2.0 + 4.0 * rng.random())))
    if rng.random() < 0.6:
        jobs.append(light(road.left - 0.7, far, 0.0))
    return jobs


def plan_traffic(canvas: Canvas, rng: Random, road: Road, weather: Weather) -> list[Job]:
    """Vehicles in their lanes, parked at the kerb, and crossing at the junction."""
    jobs: list[Job] = []
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


def _parked(canvas: Canvas, rng: Random, road: Road, side: int, weather: Weather) -> list[Job]:
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


def _vehicle(canvas: Canvas, rng: Random, name: str, pose: Pose, weather: Weather | None) -> Job:
    lamps = weather is not None and (weather.lamps or rng.random() < 0.15)
    braking = weather is not None and rng.random() < 0.35
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    return Job(pose.z, lambda: draw_vehicle(canvas, name, pose, paint, lamps=lamps, braking=braking))


def _pick_model(rng: Random) -> str:
    names = ("sedan", "sedan", "sedan", "hatchback", "hatchback", "suv", "suv", "van", "truck", "bus")
    return names[int(rng.integers(len(names)))]


def plan_people(canvas: Canvas, rng: Random, road: Road, weather: Weather) -> list[Job]:
    """Walkers on the sidewalks and crosswalks, cyclists along the road and across it."""
    jobs: list[Job] = []
    wet = weather.rain > 0.2

    def walker(x: float, z: float) -> Job:
        umbrella = wet and rng.random() < 0.6
        return Job(z, lambda: draw_pedestrian(canvas, rng, x, z, umbrella=umbrella))

    def rider(x: float, z: float, crossing: bool) -> Job:
        return Job(z, lambda: draw_cyclist(canvas, rng, x, z, crossing=crossing, lamps=weather.lamps))

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
