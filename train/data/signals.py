"""Traffic lights and traffic signs on their poles."""

import numpy as np

from train.data.camera import Colour, Pixels
from train.data.canvas import Canvas, Surface
from train.data.classes import POLE, SIGN
from train.data.people import pick
from train.data.vehicles import CIRCLE

Random = np.random.Generator

LIT: tuple[Colour, ...] = ((255, 48, 40), (255, 190, 50), (60, 240, 150))
RED, BLUE, WHITE, GREEN, YELLOW = (196, 26, 34), (24, 76, 160), (236, 236, 232), (20, 110, 74), (236, 190, 40)


def draw_traffic_light(canvas: Canvas, rng: Random, x: float, z: float, *, state: int, arm: float) -> None:
    """A light on a pole at (x, z) metres; `arm`: how far over the road it hangs (0: on the pole); state 0 red, 1 amber,
    2 green.
    """
    camera = canvas.camera
    pole = canvas.add(Surface(POLE, depth=z, grain=5))
    low = 5.0 if arm else 2.3 + 0.5 * rng.random()
    grey = (104, 108, 110)
    canvas.line(camera.project([(x, 0.0, z), (x, low + 0.9, z)]), grey, camera.size(0.14, z), pole)
    if arm:
        canvas.line(camera.project([(x, low + 0.85, z), (x + arm, low + 0.85, z)]), grey, camera.size(0.1, z), pole)
    lying = bool(arm) and rng.random() < 0.4
    thing = canvas.begin(("det_cyclist_light", 1))
    body = canvas.add(Surface(SIGN, depth=z, grain=3))
    shine = canvas.add(Surface(SIGN, depth=z, grain=2, shines=True))
    half_w, half_h = (0.55, 0.2) if lying else (0.2, 0.55)
    cx, cy = x + arm, low + 0.5

    def box(grow: float) -> Pixels:
        w, h = half_w + grow, half_h + grow
        return camera.project([(cx - w, cy - h, z), (cx + w, cy - h, z), (cx + w, cy + h, z), (cx - w, cy + h, z)])

    if rng.random() < 0.4:
        canvas.polygon(box(0.07), (206, 206, 200), body)
    canvas.polygon(box(0.0), (26, 28, 28), body)
    radius = camera.size(0.13, z)
    for index in range(3):
        offset = (1 - index) * 0.35
        at = camera.project([(cx - offset, cy, z) if lying else (cx, cy + offset, z)])[0]
        if index == state:
            canvas.ellipse(at, (radius, radius), LIT[index], shine)
            canvas.glow(at, radius * 4, LIT[index])
        else:
            canvas.ellipse(at, (radius, radius), (56, 46, 42), body)
    canvas.end(thing)


def draw_sign(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """One of: ban (red ring), warning triangle, stop, blue disc, blue board, diamond; on a pole."""
    camera = canvas.camera
    pole = canvas.add(Surface(POLE, depth=z, grain=5))
    middle = 2.2 + 0.6 * rng.random()
    canvas.line(camera.project([(x, 0.0, z), (x, middle + 0.4, z)]), (136, 140, 142), camera.size(0.08, z), pole)
    thing = canvas.begin(("det_vehicle_sign", 1))
    board = canvas.add(Surface(SIGN, depth=z, grain=3))
    radius = 0.36 + 0.14 * rng.random()

    def shape(points: np.ndarray, size: float) -> Pixels:
        return camera.project([(x + size * px, middle + size * py, z) for px, py in points])

    triangle = np.array([(-1.0, -0.75), (1.0, -0.75), (0.0, 1.0)])
    square = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    diamond = np.array([(-1.15, 0.0), (0.0, -1.15), (1.15, 0.0), (0.0, 1.15)])
    octagon = np.array([(-1, -0.41), (-0.41, -1), (0.41, -1), (1, -0.41), (1, 0.41), (0.41, 1), (-0.41, 1), (-1, 0.41)])
    bar = np.array([(-0.62, -0.16), (0.62, -0.16), (0.62, 0.16), (-0.62, 0.16)])
    stem = np.array([(-0.12, -0.45), (0.12, -0.45), (0.12, 0.45), (-0.12, 0.45)])
    layers: tuple[tuple[tuple[np.ndarray, float, Colour], ...], ...] = (
        ((CIRCLE, 1.0, RED), (CIRCLE, 0.76, WHITE), (stem, 1.0, (30, 30, 32))),
        ((triangle, 1.0, RED), (triangle, 0.68, WHITE), (stem, 0.7, (30, 30, 32))),
        ((octagon, 1.0, RED), (bar, 1.0, WHITE)),
        ((CIRCLE, 1.0, BLUE), (stem, 1.1, WHITE), (triangle, 0.3, WHITE)),
        ((square, 1.0, BLUE), (square, 0.8, WHITE), (triangle, 0.6, (30, 30, 32))),
        ((diamond, 1.0, WHITE), (diamond, 0.8, YELLOW)),
        ((CIRCLE, 1.0, RED), (bar, 1.0, WHITE)),
    )
    for points, size, colour in layers[int(rng.integers(len(layers)))]:
        canvas.polygon(shape(points, radius * size), colour, board)
    canvas.end(thing)


def draw_gantry(canvas: Canvas, rng: Random, left: float, right: float, z: float) -> None:
    """A guide board over the road, between two posts."""
    camera = canvas.camera
    pole = canvas.add(Surface(POLE, depth=z, grain=5))
    frame = camera.project([(left, 0.0, z), (left, 6.4, z), (right, 6.4, z), (right, 0.0, z)])
    canvas.line(frame, (128, 132, 134), camera.size(0.25, z), pole)
    width = 2.8 + 1.5 * rng.random()
    middle = left + width / 2 + (right - left - width) * rng.random()
    thing = canvas.begin(("det_vehicle_sign", 1))
    board = canvas.add(Surface(SIGN, depth=z, grain=3))
    colour = pick(rng, (GREEN, BLUE))

    def rectangle(x0: float, x1: float, y0: float, y1: float) -> Pixels:
        return camera.project([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])

    canvas.polygon(rectangle(middle - width / 2, middle + width / 2, 5.3, 7.3), WHITE, board)
    canvas.polygon(rectangle(middle - width / 2 + 0.1, middle + width / 2 - 0.1, 5.4, 7.2), colour, board)
    for row in range(3):
        length = width * (0.3 + 0.4 * rng.random())
        start = middle - width / 2 + 0.3
        canvas.polygon(rectangle(start, start + length, 5.65 + 0.5 * row, 5.85 + 0.5 * row), WHITE)
    canvas.end(thing)
