"""The road of a scene: its course, its lanes, and everything that is painted or lies on the ground."""

from dataclasses import dataclass

import numpy as np

from train.data.camera import Camera, Colour, Pixels
from train.data.canvas import Canvas, Surface
from train.data.classes import DASHED_LINE, LANE, OTHER_MARKING, ROAD, SIDEWALK, SOLID_LINE, VEGETATION

Random = np.random.Generator

FAR = 160.0  # metres; what lies beyond is hidden by the skyline


@dataclass(frozen=True)
class Line:
    """A lane line: metres right of the camera, kind, colour, width in metres."""

    x: float
    kind: int
    colour: Colour
    width: float = 0.15


@dataclass(frozen=True)
class Road:
    """Course x(z) = x0 + slope·z + bend·z²; lanes between `borders`, +1 leads away from the camera, -1 towards it."""

    slope: float
    bend: float
    borders: tuple[float, ...]
    directions: tuple[int, ...]
    sidewalk: float
    kerb: float
    junction: float | None
    crossing: float
    urban: bool

    @property
    def left(self) -> float:
        return self.borders[0] - self.kerb

    @property
    def right(self) -> float:
        return self.borders[-1] + self.kerb

    def at(self, x: float, z: float) -> float:
        """Lateral metres, at distance z, of a line that passes the camera at x."""
        return x + self.slope * z + self.bend * z * z

    def heading(self, z: float) -> tuple[float, float]:
        """Unit direction (x, z) of the road at z."""
        turn = self.slope + 2 * self.bend * z
        length = (1 + turn * turn) ** 0.5
        return turn / length, 1 / length

    def in_junction(self, z: float) -> bool:
        """Whether z lies on the crossing road or its crosswalks."""
        return self.junction is not None and self.junction - 5.5 < z < self.junction + self.crossing + 5.5


def plan_road(rng: Random, urban: bool) -> Road:
    """A random road: 2 to 5 lanes, perhaps with a junction."""
    lanes = int(rng.integers(2, 5)) if urban else int(rng.integers(2, 6))
    width = 3.0 + 0.7 * rng.random()
    two_way = urban or lanes < 4
    oncoming = int(rng.integers(1, max(2, lanes // 2 + 1))) if two_way else 0
    own = int(rng.integers(oncoming, lanes))
    start = -(own + 0.5) * width + 0.5 * (rng.random() - 0.5)
    junction = 14.0 + 34.0 * rng.random() if rng.random() < (0.65 if urban else 0.12) else None
    return Road(
        slope=0.08 * (rng.random() - 0.5),
        bend=(0.0022 if junction is None else 0.0006) * (rng.random() - 0.5),
        borders=tuple(start + index * width for index in range(lanes + 1)),
        directions=(-1,) * oncoming + (1,) * (lanes - oncoming),
        sidewalk=2.0 + 3.0 * rng.random() if urban else 0.0,
        kerb=0.25 + (0.9 if not urban else 0.5) * rng.random(),
        junction=junction,
        crossing=7.0 + 6.0 * rng.random(),
        urban=urban,
    )


def strip(camera: Camera, road: Road, left: float, right: float, near: float, far: float) -> Pixels:
    """Outline of the ground between two lines along the road."""
    count = 2 + int(min(22, (far - near) // 4))
    # Denser near the camera: equal steps of 1/z are equal steps in rows.
    inverse = [1 / near + (1 / far - 1 / near) * step / (count - 1) for step in range(count)]
    depths = [1 / value for value in inverse]
    forth = [(road.at(left, z), 0.0, z) for z in depths]
    back = [(road.at(right, z), 0.0, z) for z in reversed(depths)]
    return camera.project(forth + back)


def draw_ground(canvas: Canvas, rng: Random, road: Road, asphalt: Colour) -> None:
    """Terrain, sidewalks with kerbs, the road and the crossing road, spots and cracks; no markings yet."""
    camera = canvas.camera
    near = camera.nearest * 0.9
    grass = canvas.add(Surface(VEGETATION, grain=30))
    paved = canvas.add(Surface(SIDEWALK, grain=14))
    tarmac = canvas.add(Surface(ROAD, grain=16))
    horizon = round(camera.horizon)
    green = (70 + int(rng.integers(50)), 92 + int(rng.integers(40)), 44 + int(rng.integers(24)))
    everything = np.array(
        [[0, horizon], [camera.columns, horizon], [camera.columns, camera.rows], [0, camera.rows]], np.int32
    )
    stone: Colour = tuple(int(value) for value in 118 + rng.integers(56) + rng.integers(-8, 9, 3))  # type: ignore[assignment]
    if road.urban and rng.random() < 0.7:
        canvas.polygon(everything, stone, paved)
    else:
        canvas.polygon(everything, green, grass)
    if road.sidewalk:
        for left, right in ((road.left - road.sidewalk, road.left), (road.right, road.right + road.sidewalk)):
            canvas.polygon(strip(camera, road, left, right, near, FAR), stone, paved)
            _draw_slabs(canvas, road, left, right, stone)
    canvas.polygon(strip(camera, road, road.left, road.right, near, FAR), asphalt, tarmac)
    if road.urban:
        pale = (min(255, stone[0] + 28), min(255, stone[1] + 28), min(255, stone[2] + 28))
        for x in (road.left - 0.18, road.right):
            canvas.polygon(strip(camera, road, x, x + 0.18, near, 70), pale)
    if road.junction is not None:
        z0, z1 = road.junction, road.junction + road.crossing
        across = camera.project([(-90.0, 0.0, z0), (-90.0, 0.0, z1), (90.0, 0.0, z1), (90.0, 0.0, z0)])
        canvas.polygon(across, asphalt, tarmac)
    _draw_wear(canvas, rng, road, near)


def _draw_slabs(canvas: Canvas, road: Road, left: float, right: float, stone: Colour) -> None:
    seam = (stone[0] * 4 // 5, stone[1] * 4 // 5, stone[2] * 4 // 5)
    z = canvas.camera.nearest
    while z < 32:
        canvas.line(canvas.camera.project([(road.at(left, z), 0.0, z), (road.at(right, z), 0.0, z)]), seam, 1)
        z += 1.5


def _draw_wear(canvas: Canvas, rng: Random, road: Road, near: float) -> None:
    """What looks like markings and is none: patches, seams, cracks, covers, tyre tracks, shadows across the road."""
    camera = canvas.camera
    for _ in range(int(rng.integers(2, 9))):
        z = near + 45 * rng.random() ** 2
        x = road.left + (road.right - road.left) * rng.random()
        size, length = 0.4 + 2.0 * rng.random(), 1 + 8 * rng.random()
        canvas.shade(strip(camera, road, x, x + size, z, z + length), 78 + int(rng.integers(42)))
    for x in (*road.borders[:-1],):
        for track in (0.28, 0.72):
            place = x + track * (road.borders[1] - road.borders[0])
            canvas.shade(strip(camera, road, place - 0.22, place + 0.22, near, 60), 93)
    for _ in range(int(rng.integers(0, 7))):
        z, x = near + 20 * rng.random(), road.left + (road.right - road.left) * rng.random()
        points = [(x, 0.0, z)]
        for _ in range(5):
            x, z = x + 1.2 * (rng.random() - 0.5), z + 1.4 * rng.random()
            points.append((x, 0.0, z))
        canvas.line(camera.project(points), (46, 46, 48), max(1, camera.size(0.03, z)))
    for _ in range(int(rng.integers(0, 3))):
        z, x = near + 18 * rng.random(), road.left + (road.right - road.left) * rng.random()
        half = (camera.size(0.33, z), max(1, round(camera.size(0.33, z) * camera.height / z)))
        canvas.ellipse(camera.project([(x, 0.0, z)])[0], half, (58, 56, 54))
    if rng.random() < 0.5:
        z = near + 25 * rng.random()
        slant = 6 * (rng.random() - 0.5)
        edge = [
            (road.left - 8, 0.0, z),
            (road.right + 8, 0.0, z + max(-z + 2, slant)),
            (road.right + 8, 0.0, z + 4),
            (road.left - 8, 0.0, z + 3),
        ]
        canvas.shade(camera.project([(x, y, max(z, 1.0)) for x, y, z in edge]), 66)


def plan_lines(rng: Random, road: Road) -> list[Line]:
    """Lane lines by the rules of the road: solid at the edges and between directions, dashed between lanes."""
    white, yellow = (226, 226, 220), (222, 176, 52)
    middle = yellow if rng.random() < 0.6 else white
    lines = []
    for index, x in enumerate(road.borders):
        if index in (0, len(road.borders) - 1):
            if not road.urban or rng.random() < 0.7:
                lines.append(Line(x, SOLID_LINE, white))
        elif road.directions[index - 1] != road.directions[index]:
            kind = rng.random()
            if kind < 0.35:
                lines += [Line(x - 0.17, SOLID_LINE, middle, 0.12), Line(x + 0.17, SOLID_LINE, middle, 0.12)]
            else:
                lines.append(Line(x, SOLID_LINE if kind < 0.7 else DASHED_LINE, middle))
        else:
            lines.append(Line(x, SOLID_LINE if rng.random() < 0.22 else DASHED_LINE, white))
    return lines


def draw_markings(canvas: Canvas, rng: Random, road: Road) -> None:
    """Lane lines, and at a junction stop lines and crosswalks, arrows before it; worn to a random degree."""
    camera = canvas.camera
    surfaces = {
        kind: canvas.add(Surface(LANE, lane=kind, grain=18)) for kind in (SOLID_LINE, DASHED_LINE, OTHER_MARKING)
    }
    wear = 62 + int(rng.integers(38))
    near = camera.nearest * 0.9
    dash, gap = (3.0, 4.5 + 3.0 * rng.random()) if road.urban else (6.0, 9.0)
    for line in plan_lines(rng, road):
        colour = _worn(line.colour, wear)
        if line.kind == SOLID_LINE:
            for z0, z1 in _outside_junction(road, near, FAR * 0.7):
                canvas.polygon(_stripe(canvas, road, line, z0, z1), colour, surfaces[SOLID_LINE])
        else:
            z = near - (dash + gap) * rng.random()
            while z < 75:
                z0, z1 = max(z, near), z + dash
                if z1 > near + 0.3 and not road.in_junction(z0) and not road.in_junction(z1):
                    canvas.polygon(_stripe(canvas, road, line, z0, z1), colour, surfaces[DASHED_LINE])
                z += dash + gap
    white = _worn((228, 228, 222), wear)
    if road.junction is not None:
        for z in (road.junction - 4.3, road.junction + road.crossing + 1.0):
            _draw_crosswalk(canvas, road, z, white, surfaces[OTHER_MARKING])
        own = road.borders[road.directions.index(1)]
        stop = road.junction - 5.6
        if stop > near + 0.5:
            canvas.polygon(strip(camera, road, own, road.borders[-1], stop, stop + 0.4), white, surfaces[OTHER_MARKING])
    elif road.urban and rng.random() < 0.25:
        _draw_crosswalk(canvas, road, near + 4 + 20 * rng.random(), white, surfaces[OTHER_MARKING])
    for index, direction in enumerate(road.directions):
        if rng.random() < 0.55:
            limit = road.junction - 13 if road.junction is not None else 30.0
            z = near + 1.5 + max(0.0, limit - near - 1.5) * rng.random()
            if not road.in_junction(z) and not road.in_junction(z + 4.5):
                middle = (road.borders[index] + road.borders[index + 1]) / 2
                _draw_arrow(canvas, road, middle, z, direction, int(rng.integers(4)), white, surfaces[OTHER_MARKING])


def _stripe(canvas: Canvas, road: Road, line: Line, near: float, far: float) -> Pixels:
    return strip(canvas.camera, road, line.x - line.width / 2, line.x + line.width / 2, near, far)


def _outside_junction(road: Road, near: float, far: float) -> list[tuple[float, float]]:
    if road.junction is None:
        return [(near, far)]
    before, after = road.junction - 5.6, road.junction + road.crossing + 5.6
    return [(z0, z1) for z0, z1 in ((near, before), (max(near, after), far)) if z1 > z0 + 0.3]


def _draw_crosswalk(canvas: Canvas, road: Road, z: float, colour: Colour, surface: int) -> None:
    if z < canvas.camera.nearest * 0.95:
        return
    x = road.left + 0.3
    while x < road.right - 0.4:
        canvas.polygon(strip(canvas.camera, road, x, x + 0.45, z, z + 3.2), colour, surface)
        x += 1.0


def _draw_arrow(
    canvas: Canvas, road: Road, x: float, z: float, direction: int, kind: int, colour: Colour, surface: int
) -> None:
    """A lane arrow of 4 m: 0 straight, 1 straight and left, 2 straight and right, 3 a diamond."""

    def ground(points: list[tuple[float, float]]) -> Pixels:
        placed = [(across * direction, along if direction > 0 else 4.0 - along) for across, along in points]
        return canvas.camera.project([(road.at(x + across, z + along), 0.0, z + along) for across, along in placed])

    if kind == 3:
        canvas.polygon(ground([(0.0, 0.0), (-0.5, 1.5), (0.0, 3.0), (0.5, 1.5)]), colour, surface)
        return
    canvas.polygon(ground([(-0.08, 0.0), (0.08, 0.0), (0.08, 2.6), (-0.08, 2.6)]), colour, surface)
    canvas.polygon(ground([(-0.4, 2.5), (0.4, 2.5), (0.0, 4.0)]), colour, surface)
    if kind:
        side = -1.0 if kind == 1 else 1.0
        canvas.polygon(ground([(0.0, 1.0), (0.0, 1.4), (0.45 * side, 1.9), (0.45 * side, 1.5)]), colour, surface)
        canvas.polygon(ground([(0.4 * side, 1.2), (0.4 * side, 2.3), (0.85 * side, 1.75)]), colour, surface)


def _worn(colour: Colour, percent: int) -> Colour:
    """A marking that shows some of the asphalt (grey 90) below it."""
    red, green, blue = (value * percent // 100 + 90 * (100 - percent) // 100 for value in colour)
    return red, green, blue
