"""What stands beside the road: sky and skyline, buildings with windows, trees, hedges, fences, lamp posts."""

import cv2
import numpy as np

from train.data.camera import Colour, Pixels
from train.data.canvas import Canvas, Surface
from train.data.classes import BUILDING, FENCE, POLE, VEGETATION
from train.data.people import pick
from train.data.road import Road

Random = np.random.Generator

WALLS: tuple[Colour, ...] = (
    (168, 120, 96), (196, 180, 152), (142, 142, 146), (206, 200, 190), (120, 84, 70), (176, 152, 112),
    (96, 110, 126), (214, 176, 138), (150, 160, 150),
)  # fmt: skip
SKIES: dict[str, tuple[Colour, Colour]] = {
    "clear": ((74, 128, 196), (192, 214, 232)),
    "pale": ((150, 172, 196), (222, 226, 226)),
    "overcast": ((150, 154, 160), (204, 206, 208)),
    "dusk": ((86, 84, 128), (240, 176, 120)),
    "night": ((54, 60, 86), (92, 88, 100)),
}


def draw_sky(canvas: Canvas, rng: Random, kind: str, cloudiness: float) -> None:
    """A vertical gradient with soft clouds. Surface 0 is there already."""
    rows, columns = canvas.image.shape[:2]
    top, bottom = (np.array(colour, dtype=np.int64) for colour in SKIES[kind])
    horizon = max(1, round(canvas.camera.horizon))
    steps = np.minimum(np.arange(rows), horizon)[:, None]
    gradient = (top * (horizon - steps) + bottom * steps) // horizon
    canvas.image[:] = gradient[:, None, :].astype(np.uint8)
    small = np.zeros((horizon // 8 + 1, columns // 8 + 1), np.uint8)
    for _ in range(int(26 * cloudiness)):
        x, y = int(rng.integers(small.shape[1])), int(rng.integers(max(1, small.shape[0] * 3 // 4)))
        for _ in range(5):
            dx, dy = int(rng.integers(-14, 15)), int(rng.integers(-3, 4))
            axes = (4 + int(rng.integers(14)), 2 + int(rng.integers(4)))
            cv2.ellipse(small, (x + dx, y + dy), axes, 0, 0, 360, int(120 + rng.integers(110)), -1)
    cover = cv2.resize(cv2.GaussianBlur(small, (11, 7), 0), (columns, horizon), interpolation=cv2.INTER_LINEAR_EXACT)
    white = 244 if kind != "night" else 84
    sky = canvas.image[:horizon].astype(np.uint16)
    share = cover[:, :, None].astype(np.uint16)
    canvas.image[:horizon] = ((sky * (255 - share) + white * share) // 255).astype(np.uint8)


def draw_skyline(canvas: Canvas, rng: Random, urban: bool) -> None:
    """Far hills, woods or houses on the horizon."""
    camera = canvas.camera
    horizon = round(camera.horizon)
    woods = canvas.add(Surface(VEGETATION, depth=180.0, grain=18))
    x, points = 0, [[0, horizon + 2]]
    while x < camera.columns + 60:
        points.append([x, horizon - camera.size(3 + 10 * rng.random(), 180.0)])
        x += 12 + int(rng.integers(50))
    points.append([x, horizon + 2])
    canvas.polygon(np.array(points, np.int32), pick(rng, ((86, 104, 88), (98, 112, 104), (74, 96, 74))), woods)
    if not urban:
        return
    houses = canvas.add(Surface(BUILDING, depth=170.0, grain=8))
    for _ in range(int(rng.integers(6, 18))):
        left, width = int(rng.integers(camera.columns)), camera.size(8 + 14 * rng.random(), 170.0)
        top = horizon - camera.size(8 + 26 * rng.random(), 170.0)
        red, green, blue = pick(rng, WALLS)
        block = np.array([[left, top], [left + width, top], [left + width, horizon + 2], [left, horizon + 2]], np.int32)
        canvas.polygon(block, ((red + 170) // 2, (green + 176) // 2, (blue + 184) // 2), houses)


def draw_building(
    canvas: Canvas, rng: Random, road: Road, side: int, distance: float, near: float, far: float, lit: float
) -> None:
    """A house along the road from z = near to far, `distance` metres beside the road; `lit`: share of windows with
    light.
    """
    edge = road.right if side > 0 else road.left
    x0, x1 = road.at(edge + side * distance, near), road.at(edge + side * distance, far)
    depth = 10.0 + 8 * rng.random()
    floors = int(rng.integers(2, 9))
    height = 3.1 * floors + 1.0
    wall = pick(rng, WALLS)
    surface = canvas.add(Surface(BUILDING, depth=near, grain=12))
    glass = canvas.add(Surface(BUILDING, depth=near, grain=3))
    bright = canvas.add(Surface(BUILDING, depth=near, grain=2, shines=True))
    faces = (
        ((x0, near), (x0 + side * depth, near), wall),
        ((x0, near), (x1, far), (wall[0] * 4 // 5, wall[1] * 4 // 5, wall[2] * 4 // 5)),
    )
    style = rng.random(3)
    for start, stop, colour in faces:
        canvas.polygon(_wall(canvas, start, stop, 0.0, height, 0.0, 1.0), colour, surface)
        band = (colour[0] * 7 // 10, colour[1] * 7 // 10, colour[2] * 7 // 10)
        canvas.polygon(_wall(canvas, start, stop, height - 0.5, height, 0.0, 1.0), band, surface)
        length = ((stop[0] - start[0]) ** 2 + (stop[1] - start[1]) ** 2) ** 0.5
        count = max(1, int(length / (2.4 + 1.6 * style[0])))
        dark: list[Pixels] = []
        light: list[Pixels] = []
        for floor in range(floors):
            low = 3.1 * floor + (1.0 if floor else 0.5)
            for column in range(count):
                first = (column + 0.5 - 0.3 * (0.6 + 0.4 * style[1])) / count
                last = (column + 0.5 + 0.3 * (0.6 + 0.4 * style[1])) / count
                pane = _wall(canvas, start, stop, low, low + 1.4 + 0.5 * style[2], first, last)
                (light if rng.random() < lit else dark).append(pane)
        canvas.polygons(dark, (58, 70, 84), glass)
        canvas.polygons(light, (250, 214, 140), bright)


def _wall(
    canvas: Canvas,
    start: tuple[float, float],
    stop: tuple[float, float],
    low: float,
    high: float,
    first: float,
    last: float,
) -> Pixels:
    """A rectangle on the wall over the ground line from start to stop,
    from the shares `first` to `last` of its length."""

    def at(share: float) -> tuple[float, float]:
        return start[0] + (stop[0] - start[0]) * share, max(0.8, start[1] + (stop[1] - start[1]) * share)

    (xa, za), (xb, zb) = at(first), at(last)
    return canvas.camera.project([(xa, low, za), (xb, low, zb), (xb, high, zb), (xa, high, za)])


def draw_tree(canvas: Canvas, rng: Random, x: float, z: float, snowy: bool) -> None:
    """A trunk and a crown of many leaf discs, or a conifer."""
    camera = canvas.camera
    surface = canvas.add(Surface(VEGETATION, depth=z, grain=46))
    height = 4 + 6 * rng.random()
    canvas.shade(_spot(canvas, x, z, 1.4), 70)
    trunk = camera.project([(x, 0.0, z), (x, height * 0.6, z)])
    canvas.line(trunk, (70 + int(rng.integers(30)), 56, 42), camera.size(0.28, z), surface)
    base = np.array([52, 84, 34]) + rng.integers(-14, 26, 3)
    if rng.random() < 0.25:
        for level in range(4):
            low, half = height * (0.15 + 0.2 * level), 1.5 - 0.32 * level
            tone = _leaf(base, 84 + 10 * level + (60 if snowy else 0))
            canvas.polygon(
                camera.project([(x - half, low, z), (x + half, low, z), (x, low + height * 0.35, z)]), tone, surface
            )
        return
    crown = 1.2 + 1.2 * rng.random()
    for index in range(22):
        dx, dy = crown * (2 * rng.random() - 1), crown * (2 * rng.random() - 1)
        if dx * dx + dy * dy > crown * crown:
            continue
        percent = 72 + round(22 * (dy / crown + 1)) + int(rng.integers(-8, 9)) + (70 if snowy and dy > 0 else 0)
        radius = camera.size(0.45 + 0.5 * rng.random(), z)
        at = camera.project([(x + dx, height * 0.75 + dy, z)])[0]
        canvas.ellipse(at, (radius, radius * (7 + index % 3) // 9 + 1), _leaf(base, percent), surface)


def draw_hedge(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """A low bush."""
    surface = canvas.add(Surface(VEGETATION, depth=z, grain=44))
    base = np.array([56, 88, 40]) + rng.integers(-14, 24, 3)
    for _ in range(6):
        radius = 0.3 + 0.35 * rng.random()
        size = canvas.camera.size(radius, z)
        at = canvas.camera.project([(x + 1.2 * (rng.random() - 0.5), radius * (0.6 + rng.random()), z)])[0]
        canvas.ellipse(at, (size, size * 4 // 5 + 1), _leaf(base, 70 + int(rng.integers(50))), surface)


def draw_fence(canvas: Canvas, road: Road, x: float, near: float, far: float, rail: bool) -> None:
    """A guard rail, or a fence of bars, along the road."""
    camera = canvas.camera
    surface = canvas.add(Surface(FENCE, depth=near, grain=8))
    colour: Colour = (170, 174, 178) if rail else (88, 94, 92)
    height = 0.8 if rail else 1.25
    x0, x1 = road.at(x, near), road.at(x, far)
    bars = [(0.5, 0.82)] if rail else [(0.1, 0.18), (1.12, 1.2)]
    for low, high in bars:
        canvas.polygon(_wall(canvas, (x0, near), (x1, far), low, high, 0.0, 1.0), colour, surface)
    step = 2.0 if rail else 0.5
    for index in range(int((far - near) / step) + 1):
        z = near + index * step
        at = x0 + (x1 - x0) * (z - near) / (far - near)
        canvas.line(
            camera.project([(at, 0.0, z), (at, height, z)]),
            (colour[0] - 20, colour[1] - 20, colour[2] - 20),
            camera.size(0.06, z),
            surface,
        )


def draw_lamp_post(canvas: Canvas, x: float, z: float, side: int, lit: bool) -> None:
    """A street lamp whose arm reaches over the road."""
    camera = canvas.camera
    pole = canvas.add(Surface(POLE, depth=z, grain=5))
    lamp = canvas.add(Surface(POLE, depth=z, shines=lit))
    arm = -side * 1.8
    canvas.line(
        camera.project([(x, 0.0, z), (x, 7.2, z), (x + arm, 7.6, z)]), (98, 102, 106), camera.size(0.14, z), pole
    )
    head = camera.project([(x + arm * 0.8, 7.5, z), (x + arm * 1.3, 7.6, z)])
    canvas.line(head, (255, 226, 170) if lit else (140, 142, 144), camera.size(0.2, z), lamp)
    if lit:
        canvas.glow(head[1], camera.size(1.6, z), (255, 206, 130))


def _spot(canvas: Canvas, x: float, z: float, half: float) -> Pixels:
    nearer, farther = max(1.0, z - half * 0.7), z + half * 0.7
    return canvas.camera.project([(x - half, 0.0, z), (x, 0.0, nearer), (x + half, 0.0, z), (x, 0.0, farther)])


def _leaf(base: np.ndarray, percent: int) -> Colour:
    red, green, blue = (min(255, int(value) * percent // 100) for value in base)
    return red, green, blue
