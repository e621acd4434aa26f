"""Pedestrians and cyclists: jointed figures painted upright at one depth."""

import numpy as np

from train.data.camera import Colour, Pixels
from train.data.canvas import Canvas, Surface
from train.data.classes import CYCLIST, PEDESTRIAN

Random = np.random.Generator

SKINS: tuple[Colour, ...] = ((236, 196, 164), (206, 152, 112), (150, 100, 70), (96, 62, 44))
CLOTHES: tuple[Colour, ...] = (
    (30, 34, 48), (70, 74, 84), (150, 30, 36), (34, 74, 130), (206, 202, 190), (60, 96, 60), (190, 140, 50),
    (110, 60, 120), (24, 24, 26), (220, 110, 50),
)  # fmt: skip


def pick(rng: Random, options: tuple[Colour, ...]) -> Colour:
    """One of the colours, drawn evenly."""
    return options[int(rng.integers(len(options)))]


class _Figure:
    """Draws in units of the figure's height: x to the right of the foot point, y up."""

    def __init__(self, canvas: Canvas, x: float, z: float, height: float, mirrored: bool, label: int) -> None:
        self.canvas, self.x, self.z, self.height = canvas, x, z, height
        self.sign = -1.0 if mirrored else 1.0
        self.surface = canvas.add(Surface(label, depth=z, grain=7))

    def pixels(self, points: list[tuple[float, float]]) -> Pixels:
        scale = self.height
        return self.canvas.camera.project([(self.x + self.sign * px * scale, py * scale, self.z) for px, py in points])

    def size(self, length: float) -> int:
        return self.canvas.camera.size(length * self.height, self.z)

    def limb(self, points: list[tuple[float, float]], width: float, colour: Colour) -> None:
        self.canvas.line(self.pixels(points), colour, self.size(width), self.surface)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.canvas.polygon(self.pixels(points), colour, self.surface)

    def disc(self, at: tuple[float, float], radii: tuple[float, float], colour: Colour, line: float = 0.0) -> None:
        thickness = self.size(line) if line else -1
        self.canvas.ellipse(
            self.pixels([at])[0], (self.size(radii[0]), self.size(radii[1])), colour, self.surface, thickness
        )

    def shadow(self, width: float) -> None:
        spot = [(-width, 0.012), (0.0, 0.035), (width, 0.012), (width, -0.012), (0.0, -0.03), (-width, -0.012)]
        self.canvas.shade(self.pixels(spot), 55)


def draw_pedestrian(canvas: Canvas, rng: Random, x: float, z: float, *, umbrella: bool) -> None:
    """Paint a walking or standing person, feet at (x, z) metres; children too."""
    height = 1.05 + 0.3 * rng.random() if rng.random() < 0.15 else 1.55 + 0.35 * rng.random()
    thing = canvas.begin(("det_person", 0))
    figure = _Figure(canvas, x, z, height, bool(rng.integers(2)), PEDESTRIAN)
    coat, trousers, skin = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS)
    stride, swing, lean = 0.16 * rng.random(), 0.14 * rng.random(), 0.03 * rng.random()
    figure.shadow(0.2)
    shoulder = 0.075 + 0.03 * rng.random()
    figure.limb([(lean + shoulder, 0.79), (lean - swing, 0.62), (lean - swing * 0.7, 0.47)], 0.06, _dark(coat))
    figure.limb([(0.02, 0.5), (stride * 0.6, 0.27), (stride, 0.02)], 0.085, trousers)
    figure.limb([(-0.02, 0.5), (-stride * 0.4, 0.27), (-stride, 0.03)], 0.085, _dark(trousers))
    figure.limb([(stride, 0.015), (stride + 0.06, 0.012)], 0.035, (30, 26, 24))
    figure.limb([(-stride, 0.015), (-stride + 0.06, 0.012)], 0.035, (30, 26, 24))
    hem = 0.3 if rng.random() < 0.25 else 0.46  # a skirt or a long coat
    figure.shape(
        [
            (-0.085, hem),
            (0.085, hem),
            (lean + shoulder, 0.8),
            (lean + 0.03, 0.83),
            (lean - 0.03, 0.83),
            (lean - shoulder, 0.8),
        ],
        coat,
    )
    if rng.random() < 0.35:
        figure.shape(
            [
                (lean - shoulder - 0.05, 0.55),
                (lean - shoulder + 0.02, 0.55),
                (lean - shoulder + 0.02, 0.78),
                (lean - shoulder - 0.05, 0.76),
            ],
            pick(rng, CLOTHES),
        )
    figure.limb([(lean - shoulder, 0.78), (lean + swing * 0.8, 0.62), (lean + swing * 1.3, 0.48)], 0.06, _dark(coat))
    figure.limb([(lean, 0.8), (lean, 0.88)], 0.05, skin)
    figure.disc((lean, 0.92), (0.055, 0.075), skin)
    figure.disc(
        (lean - 0.008, 0.955), (0.056, 0.048), pick(rng, ((30, 22, 18), (80, 54, 30), (170, 150, 110), (60, 60, 62)))
    )
    if umbrella:
        figure.limb([(0.1, 0.6), (0.06, 1.1)], 0.015, (40, 40, 42))
        figure.shape([(-0.25, 1.02), (-0.15, 1.14), (0.06, 1.2), (0.25, 1.14), (0.35, 1.02)], pick(rng, CLOTHES))
    canvas.end(thing)


def draw_cyclist(canvas: Canvas, rng: Random, x: float, z: float, *, crossing: bool, lamps: bool) -> None:
    """Paint a person on a bicycle, seen from the side (`crossing`) or from behind or in front."""
    thing = canvas.begin(("det_cyclist_light", 0))
    figure = _Figure(canvas, x, z, 1.7 + 0.15 * rng.random(), bool(rng.integers(2)), CYCLIST)
    figure.shadow(0.45 if crossing else 0.18)
    (_draw_rider_aside if crossing else _draw_rider_along)(figure, rng)
    if lamps and not crossing:
        shine = canvas.add(Surface(CYCLIST, depth=z, shines=True))
        at = figure.pixels([(0.0, 0.42)])[0]
        colour = (255, 40, 30) if rng.random() < 0.5 else (255, 250, 230)
        canvas.ellipse(at, (figure.size(0.03), figure.size(0.03)), colour, shine)
        canvas.glow(at, figure.size(0.25), colour)
    canvas.end(thing)


def _draw_rider_aside(figure: _Figure, rng: Random) -> None:
    coat, trousers, skin, frame = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS), pick(rng, CLOTHES)
    for hub in (-0.31, 0.31):
        figure.disc((hub, 0.2), (0.19, 0.19), (22, 22, 24), line=0.028)
    seat, pedal, bar = (-0.13, 0.52), (0.0, 0.2), (0.24, 0.6)
    figure.limb([(-0.31, 0.2), seat, pedal, (-0.31, 0.2)], 0.025, frame)
    figure.limb([pedal, (0.21, 0.5), seat], 0.025, frame)
    figure.limb([(0.31, 0.2), bar], 0.025, frame)
    knee = 0.06 * rng.random()
    figure.limb([(-0.12, 0.57), (0.1, 0.42 + knee), (0.02, 0.12 + knee)], 0.08, trousers)
    figure.limb([(-0.12, 0.57), (0.06, 0.34), (-0.02, 0.14)], 0.075, _dark(trousers))
    figure.shape([(-0.18, 0.55), (-0.06, 0.53), (0.1, 0.86), (0.0, 0.9), (-0.1, 0.82)], coat)
    figure.limb([(0.05, 0.85), (0.12, 0.7), (0.24, 0.62)], 0.055, _dark(coat))
    figure.disc((0.09, 0.97), (0.055, 0.07), skin)
    if rng.random() < 0.6:
        figure.disc(
            (0.085, 1.0), (0.065, 0.05), pick(rng, ((220, 40, 40), (240, 240, 236), (30, 90, 170), (240, 200, 40)))
        )
    else:
        figure.disc((0.08, 1.0), (0.057, 0.05), (40, 28, 20))


def _draw_rider_along(figure: _Figure, rng: Random) -> None:
    coat, trousers, skin, frame = pick(rng, CLOTHES), pick(rng, CLOTHES), pick(rng, SKINS), pick(rng, CLOTHES)
    figure.disc((0.0, 0.2), (0.028, 0.2), (22, 22, 24))
    figure.limb([(0.0, 0.3), (0.0, 0.55)], 0.03, frame)
    lift = 0.1 * rng.random()
    figure.limb([(0.05, 0.56), (0.09, 0.4 + lift), (0.065, 0.14 + lift)], 0.075, trousers)
    figure.limb([(-0.05, 0.56), (-0.09, 0.5 - lift), (-0.065, 0.24 - lift)], 0.075, _dark(trousers))
    figure.shape([(-0.09, 0.52), (0.09, 0.52), (0.13, 0.84), (0.05, 0.9), (-0.05, 0.9), (-0.13, 0.84)], coat)
    figure.limb([(-0.2, 0.62), (0.2, 0.62)], 0.02, (60, 60, 62))
    figure.limb([(-0.12, 0.83), (-0.18, 0.72), (-0.18, 0.63)], 0.05, _dark(coat))
    figure.limb([(0.12, 0.83), (0.18, 0.72), (0.18, 0.63)], 0.05, _dark(coat))
    figure.disc((0.0, 0.97), (0.058, 0.072), skin)
    figure.disc((0.0, 1.0), (0.064, 0.05), pick(rng, ((220, 40, 40), (240, 240, 236), (40, 28, 20), (240, 200, 40))))


def _dark(colour: Colour) -> Colour:
    return colour[0] * 3 // 4, colour[1] * 3 // 4, colour[2] * 3 // 4
