"""Vehicles: a side profile drawn out to the vehicle's width, placed and turned on the road, with its faces seen from
the camera.
"""

from dataclasses import dataclass

import numpy as np

from train.data.camera import Colour, Pixels, Points
from train.data.canvas import Canvas, Surface
from train.data.classes import VEHICLE

FRONT, REAR = 1, 2
PARTS = {FRONT: ("det_rear", 0), REAR: ("det_rear", 1)}
KIND = ("det_vehicle_sign", 0)

# Twelve points of the unit circle, from square roots only.
_HALF_ROOT_3 = 3.0**0.5 / 2
CIRCLE = np.array(
    [
        (1, 0), (_HALF_ROOT_3, 0.5), (0.5, _HALF_ROOT_3), (0, 1), (-0.5, _HALF_ROOT_3), (-_HALF_ROOT_3, 0.5),
        (-1, 0), (-_HALF_ROOT_3, -0.5), (-0.5, -_HALF_ROOT_3), (0, -1), (0.5, -_HALF_ROOT_3), (_HALF_ROOT_3, -0.5),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A kind of vehicle. Profile: (along, height) from rear bottom over the roof to front bottom, along from 0 (rear)
    to 1 (front), height in metres; `glass`: the profile segments that are windows; `windows`: the side windows;
    `axles`: where the wheels are, along.
    """

    length: float
    width: float
    profile: tuple[tuple[float, float], ...]
    glass: tuple[int, ...]
    windows: tuple[tuple[tuple[float, float], ...], ...]
    axles: tuple[float, ...]
    wheel: float
    lamp_height: float


MODELS: dict[str, Model] = {
    "sedan": Model(
        4.6, 1.8,
        ((0, 0.3), (0, 0.75), (0.02, 0.98), (0.12, 1.03), (0.27, 1.42), (0.54, 1.44), (0.71, 0.98), (0.96, 0.8),
        (1, 0.62), (1, 0.3)),
        (3, 5), (((0.17, 1.0), (0.28, 1.36), (0.41, 1.38), (0.41, 1.0)), ((0.43, 1.0), (0.43, 1.38), (0.53, 1.38),
        (0.67, 1.0))), (0.18, 0.81), 0.32, 0.78,
    ),
    "hatchback": Model(
        3.9, 1.72,
        ((0, 0.3), (0, 0.95), (0.09, 1.45), (0.55, 1.52), (0.76, 1.02), (0.97, 0.85), (1, 0.62), (1, 0.3)),
        (1, 3), (((0.1, 1.02), (0.15, 1.4), (0.38, 1.44), (0.38, 1.02)), ((0.4, 1.02), (0.4, 1.44), (0.54, 1.45),
        (0.71, 1.02))), (0.17, 0.81), 0.31, 0.88,
    ),
    "suv": Model(
        4.7, 1.95,
        ((0, 0.4), (0, 1.1), (0.06, 1.7), (0.58, 1.76), (0.74, 1.18), (0.97, 1.05), (1, 0.8), (1, 0.38)),
        (1, 3), (((0.08, 1.15), (0.11, 1.62), (0.36, 1.66), (0.36, 1.15)), ((0.38, 1.15), (0.38, 1.66),
        (0.56, 1.68), (0.69, 1.18))), (0.18, 0.81), 0.38, 1.0,
    ),
    "van": Model(
        5.4, 2.0,
        ((0, 0.35), (0, 1.2), (0.01, 2.2), (0.72, 2.3), (0.87, 1.35), (0.98, 1.1), (1, 0.8), (1, 0.35)),
        (1, 3), (((0.66, 1.3), (0.66, 2.05), (0.73, 2.05), (0.83, 1.35)),), (0.2, 0.84), 0.35, 1.0,
    ),
    "truck": Model(
        8.5, 2.45,
        ((0, 0.6), (0, 3.4), (0.72, 3.4), (0.74, 2.7), (0.95, 2.75), (0.99, 1.7), (1, 1.0), (1, 0.4)),
        (4,), (((0.83, 1.7), (0.83, 2.5), (0.93, 2.5), (0.96, 1.7)),), (0.18, 0.3, 0.87), 0.5, 0.95,
    ),
    "bus": Model(
        11.0, 2.5,
        ((0, 0.4), (0, 1.6), (0, 2.7), (0.01, 3.05), (0.99, 3.05), (1, 2.75), (1, 1.25), (1, 0.35)),
        (1, 5), tuple(((x, 1.4), (x, 2.5), (x + 0.125, 2.5),
        (x + 0.125, 1.4)) for x in (0.04, 0.18, 0.32, 0.46, 0.6, 0.74, 0.86)), (0.22, 0.8), 0.48, 0.95,
    ),
}  # fmt: skip

# Colour of a lamp by (front, shining).
LAMPS: dict[tuple[bool, bool], Colour] = {
    (True, True): (255, 250, 225),
    (True, False): (206, 212, 216),
    (False, True): (255, 36, 28),
    (False, False): (168, 22, 20),
}
GLASS: Colour = (38, 46, 56)
PAINTS: tuple[Colour, ...] = (
    (228, 228, 226), (190, 193, 198), (120, 124, 130), (44, 46, 50), (24, 24, 27), (150, 28, 30), (30, 58, 122),
    (34, 84, 62), (196, 170, 120), (214, 178, 40), (86, 58, 44), (230, 120, 40), (70, 130, 170),
)  # fmt: skip


def tint(colour: Colour, percent: int) -> Colour:
    """The colour made darker (below 100) or lighter."""
    red, green, blue = (min(255, value * percent // 100) for value in colour)
    return red, green, blue


@dataclass
class Pose:
    """Where a vehicle stands: middle of its footprint (x, z) in metres and its unit forward direction (x, z)."""

    x: float
    z: float
    forward: tuple[float, float]

    def place(self, local: Points) -> Points:
        """Local metres (N, 3) forward, right, up to scene metres (N, 3)."""
        ahead_x, ahead_z = self.forward
        x = self.x + local[:, 0] * ahead_x + local[:, 1] * ahead_z
        z = self.z + local[:, 0] * ahead_z - local[:, 1] * ahead_x
        return np.stack([x, local[:, 2], z], axis=1)


class _Painter:
    """Paints one vehicle, local coordinates: forward from the rear end, right from the middle, up."""

    def __init__(self, canvas: Canvas, model: Model, pose: Pose) -> None:
        self.canvas, self.model, self.pose = canvas, model, pose
        self.depth = pose.z

    def corners(self, points: list[tuple[float, float, float]]) -> Points:
        local = np.array(points, dtype=np.float64)
        local[:, 0] -= self.model.length / 2
        return self.pose.place(local)

    def pixels(self, points: list[tuple[float, float, float]]) -> Pixels:
        return self.canvas.camera.project(self.corners(points))

    def faces_camera(self, points: list[tuple[float, float, float]], outward: tuple[float, float, float]) -> bool:
        corners = self.corners(points)
        normal = self.pose.place(np.array([outward])) - np.array([[self.pose.x, 0.0, self.pose.z]])
        eye = np.array([0.0, self.canvas.camera.height, 0.0])
        return float(((eye - corners.mean(axis=0)) * normal[0]).sum()) > 0

    def surface(self, part: int, grain: int = 4, shines: bool = False) -> int:
        return self.canvas.add(Surface(VEHICLE, depth=self.depth, grain=grain, part=part, shines=shines))


def draw_vehicle(canvas: Canvas, name: str, pose: Pose, paint: Colour, *, lamps: bool, braking: bool) -> None:
    """Paint a vehicle with its shadow; `lamps`: lights are on. Skipped when any of it would be behind the camera."""
    model = MODELS[name]
    painter = _Painter(canvas, model, pose)
    half = model.width / 2
    footprint = [
        (-0.2, -half - 0.15, 0.0),
        (-0.2, half + 0.15, 0.0),
        (model.length + 0.2, half + 0.15, 0.0),
        (model.length + 0.2, -half - 0.15, 0.0),
    ]
    ground = painter.corners(footprint)
    if ground[:, 2].min() < 1.5:
        return
    painter.depth = float(ground[:, 2].min())
    canvas.shade(canvas.camera.project(ground), 42)
    thing = canvas.begin(KIND, PARTS)
    _draw_wheels_of_ends(painter, half)
    for side in (-1, 1):
        _draw_side(painter, side * half, paint)
    _draw_strips(painter, half, paint)
    _draw_end(painter, half, front=False, lamps=lamps, bright=braking)
    _draw_end(painter, half, front=True, lamps=lamps, bright=lamps)
    canvas.end(thing)


def _draw_wheels_of_ends(painter: _Painter, half: float) -> None:
    model = painter.model
    dark = painter.surface(0)
    for along in (model.axles[0], model.axles[-1]):
        for inner, outer in ((-half, -half + 0.26), (half - 0.26, half)):
            at = along * model.length - model.wheel if along < 0.5 else along * model.length + model.wheel
            points = [
                (at, inner, 0.0),
                (at, outer, 0.0),
                (at, outer, model.wheel * 1.6),
                (at, inner, model.wheel * 1.6),
            ]
            painter.canvas.polygon(painter.pixels(points), (18, 18, 20), dark)


def _draw_side(painter: _Painter, right: float, paint: Colour) -> None:
    model, canvas = painter.model, painter.canvas
    outline = [(along * model.length, right, height) for along, height in model.profile]
    if not painter.faces_camera(outline, (0.0, 1.0 if right > 0 else -1.0, 0.0)):
        return
    body = painter.surface(0)
    canvas.polygon(painter.pixels(outline), tint(paint, 78), body)
    sill = [
        (0.02 * model.length, right, 0.3),
        (0.98 * model.length, right, 0.3),
        (0.98 * model.length, right, 0.5),
        (0.02 * model.length, right, 0.5),
    ]
    canvas.polygon(painter.pixels(sill), tint(paint, 55), body)
    for window in model.windows:
        canvas.polygon(painter.pixels([(along * model.length, right, height) for along, height in window]), GLASS)
    for axle in model.axles:
        for radius, colour in ((model.wheel, (20, 20, 22)), (model.wheel * 0.58, (132, 134, 138))):
            rim = [(axle * model.length + radius * x, right, model.wheel + radius * y) for x, y in CIRCLE]
            canvas.polygon(painter.pixels(rim), colour, body)


def _draw_strips(painter: _Painter, half: float, paint: Colour) -> None:
    """The faces between the two sides: rear, trunk, glass, roof, bonnet, front."""
    model = painter.model
    surfaces = {0: painter.surface(0), FRONT: painter.surface(FRONT), REAR: painter.surface(REAR)}
    for index, ((a0, h0), (a1, h1)) in enumerate(zip(model.profile, model.profile[1:], strict=False)):
        run, rise = (a1 - a0) * model.length, h1 - h0
        length = (run * run + rise * rise) ** 0.5
        backward = rise / length  # the outward normal is (-rise, run): backward where the profile climbs
        points = [
            (a0 * model.length, -half, h0),
            (a0 * model.length, half, h0),
            (a1 * model.length, half, h1),
            (a1 * model.length, -half, h1),
        ]
        if not painter.faces_camera(points, (-rise, 0.0, run)):
            continue
        part = REAR if backward > 0.35 else FRONT if backward < -0.35 else 0
        lit = 82 + round(30 * run / length)
        painter.canvas.polygon(painter.pixels(points), tint(paint, lit), surfaces[part])
        if index in model.glass:
            inner = 0.88 * half
            pane = [(p[0], inner if p[1] > 0 else -inner, p[2]) for p in points]
            painter.canvas.polygon(painter.pixels(pane), GLASS, surfaces[part])


def _draw_end(painter: _Painter, half: float, *, front: bool, lamps: bool, bright: bool) -> None:
    """Lamps, number plate, bumper and grille of the front or the rear, if that end is seen."""
    model, canvas = painter.model, painter.canvas
    at = model.length if front else 0.0
    edge = [(at, -half, 0.4), (at, half, 0.4), (at, half, 0.9), (at, -half, 0.9)]
    if not painter.faces_camera(edge, (1.0 if front else -1.0, 0.0, 0.0)):
        return
    part = FRONT if front else REAR
    flat, lamp = painter.surface(part), painter.surface(part, shines=lamps or bright)

    def box(left: float, right: float, low: float, high: float) -> Pixels:
        return painter.pixels([(at, left, low), (at, right, low), (at, right, high), (at, left, high)])

    base, centre = model.profile[0][1], model.lamp_height
    canvas.polygon(box(-half, half, base, base + 0.16), (40, 40, 43), flat)
    if front:
        canvas.polygon(box(-0.5 * half, 0.5 * half, base + 0.18, centre - 0.12), (26, 26, 28))
    elif model.length > 8:
        canvas.polygon(box(-0.02, 0.02, base, model.profile[1][1]), (60, 60, 62))
    canvas.polygon(box(-0.26, 0.26, base + 0.2, base + 0.34), (226, 226, 214))
    colour = LAMPS[front, bright]
    for left, right in ((-0.96 * half, -0.62 * half), (0.62 * half, 0.96 * half)):
        shape = box(left, right, centre - 0.22, centre)
        canvas.polygon(shape, colour, lamp)
        if lamps or bright:
            radius = canvas.camera.size(0.9 if front else 0.4, painter.depth)
            canvas.glow(shape.mean(axis=0).astype(np.int32), radius, colour)
