"""Light and weather over a painted scene: night and lamps, fog, rain, snow, grain, lens and sensor.

Integer arithmetic and OpenCV's bit-exact filters on bytes, so that a picture is the same on every machine.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.canvas import GROUND, Canvas
from train.data.classes import LANE, ROAD

Random = np.random.Generator
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Weather:
    """`light`: percent of daylight; `fog`: metres at which half of a colour is left, 0 for none; rain, snow: strength
    in 0..1.
    """

    sky: str
    light: int
    warmth: int
    fog: int
    rain: float
    snow: float
    cloudiness: float

    @property
    def lamps(self) -> bool:
        """Whether lamps are switched on."""
        return self.light < 62 or self.fog > 0 or self.rain > 0.3


def plan_weather(rng: Random) -> Weather:
    """Day in 60 %, dusk in 18 %, night in 22 % of the scenes; fog, rain and snow each in about one of eight."""
    hour = rng.random()
    kind = rng.random()
    fog = 35 + int(rng.integers(110)) if kind < 0.12 else 0
    rain = 0.3 + 0.7 * rng.random() if 0.12 <= kind < 0.25 else 0.0
    snow = 0.3 + 0.7 * rng.random() if 0.25 <= kind < 0.35 else 0.0
    gloomy = fog > 0 or rain > 0 or snow > 0
    if hour < 0.6:
        sky = "overcast" if gloomy else ("clear", "pale", "overcast")[int(rng.integers(3))]
        return Weather(
            sky,
            78 + int(rng.integers(42)) - (14 if gloomy else 0),
            int(rng.integers(-8, 9)),
            fog,
            rain,
            snow,
            rng.random(),
        )
    if hour < 0.78:
        return Weather("dusk", 46 + int(rng.integers(22)), 14, fog, rain, snow, rng.random())
    return Weather("night", 26 + int(rng.integers(18)), -8, fog, rain, snow, rng.random())


def apply_weather(canvas: Canvas, rng: Random, weather: Weather) -> Bytes:
    """The picture as the camera sees it, (H, W, 3) uint8 RGB."""
    image = _grain(canvas, rng)
    if weather.snow:
        image = _lie_snow(canvas, rng, image, weather.snow)
    if weather.fog:
        image = _fog(canvas, image, weather)
    image = _light(canvas, image, weather)
    if weather.lamps:
        image = _glow(canvas, image, weather)
    if weather.rain:
        image = _rain(rng, image, weather)
    if weather.snow:
        image = _flakes(rng, image, weather)
    return _sensor(rng, image, weather)


def _field(rng: Random, rows: int, columns: int) -> NDArray[np.int16]:
    """Noise in -128..127 of fine and coarse grain, from one tile that is laid over the picture at random."""
    fine = rng.integers(0, 256, (256, 512), dtype=np.uint8)
    coarse = cv2.resize(
        rng.integers(0, 256, (43, 86), dtype=np.uint8), (512, 256), interpolation=cv2.INTER_LINEAR_EXACT
    )
    tile = (fine.astype(np.int16) + coarse.astype(np.int16)) // 2 - 128
    repeats = (rows // 256 + 2, columns // 512 + 2)
    top, left = int(rng.integers(256)), int(rng.integers(512))
    return np.tile(tile, repeats)[top : top + rows, left : left + columns]


def _grain(canvas: Canvas, rng: Random) -> Bytes:
    """Texture, as strong as each surface's grain says."""
    rows, columns = canvas.numbers.shape
    table = np.array([surface.grain for surface in canvas.surfaces], np.int16)
    noise = _field(rng, rows, columns) * table[canvas.numbers] // 96
    up = np.clip(noise, 0, 255).astype(np.uint8)
    down = np.clip(-noise, 0, 255).astype(np.uint8)
    return cv2.subtract(cv2.add(canvas.image, cv2.merge([up, up, up])), cv2.merge([down, down, down]))


def _depth_share(canvas: Canvas, half: int) -> Bytes:
    """Share of fog per pixel, 0..255: d / (d + half), d from the surface's depth or, on the ground, from the row."""
    camera = canvas.camera
    rows = np.arange(camera.rows)
    below = np.maximum(rows - camera.horizon, 1.0)
    ground = camera.focal * camera.height / below
    by_row = (245 * ground / (ground + half)).astype(np.uint8)
    depths = np.array([surface.depth for surface in canvas.surfaces])
    by_surface = (245 * depths / (depths + half)).astype(np.uint8)
    on_ground = np.array([surface.depth == GROUND for surface in canvas.surfaces])
    return np.where(on_ground[canvas.numbers], by_row[:, None], by_surface[canvas.numbers])


def _blend(image: Bytes, share: Bytes, colour: tuple[int, int, int]) -> Bytes:
    """image · (1 - share/255) + colour · share/255, truncated."""
    result = np.empty_like(image)
    part = share.astype(np.uint16)
    for channel in range(3):
        result[:, :, channel] = (image[:, :, channel] * (255 - part) + colour[channel] * part) // 255
    return result


def _fog(canvas: Canvas, image: Bytes, weather: Weather) -> Bytes:
    return _blend(image, _depth_share(canvas, weather.fog), (196, 200, 204))


def _light(canvas: Canvas, image: Bytes, weather: Weather) -> Bytes:
    """Daylight percent on everything that does not shine; at night the own headlights brighten the ground ahead."""
    levels = np.arange(256)
    tables = np.empty((256, 1, 3), np.uint8)
    warmth = (weather.warmth, 0, -weather.warmth)
    for channel in range(3):
        tables[:, 0, channel] = np.clip(
            levels * (weather.light + warmth[channel] * weather.light // 100) // 100, 0, 255
        )
    dark = cv2.LUT(image, tables)
    shines = np.array([surface.shines for surface in canvas.surfaces])[canvas.numbers].astype(np.uint8)
    if weather.light < 62:
        near = _headlight(canvas)
        dark = cv2.add(dark, _scaled(image, near))
    cv2.copyTo(image, shines, dark)
    return dark


def _scaled(image: Bytes, share: Bytes) -> Bytes:
    result = np.empty_like(image)
    part = share.astype(np.uint16)
    for channel in range(3):
        result[:, :, channel] = (image[:, :, channel] * part) >> 8
    return result


def _headlight(canvas: Canvas) -> Bytes:
    """Share of light (of 256) from the own car: a soft beam on the road ahead."""
    rows, columns = canvas.numbers.shape
    small = np.zeros((rows // 8, columns // 8), np.uint8)
    horizon, centre = round(canvas.camera.horizon) // 8, columns // 16
    beam = [
        [centre - 10, horizon],
        [centre + 14, horizon],
        [centre + columns // 14, rows // 8],
        [centre - columns // 14, rows // 8],
    ]
    cv2.fillPoly(small, [np.array(beam, np.int32)], 74)
    cv2.ellipse(
        small,
        (centre, horizon + (rows // 8 - horizon) // 3),
        (columns // 24, (rows // 8 - horizon) // 3),
        0,
        0,
        360,
        130,
        -1,
    )
    return cv2.resize(cv2.GaussianBlur(small, (31, 15), 0), (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT)


def _glow(canvas: Canvas, image: Bytes, weather: Weather) -> Bytes:
    """Halos around the lamps that are seen, brighter the darker it is."""
    rows, columns = canvas.numbers.shape
    halo = np.zeros((rows // 4, columns // 4, 3), np.uint8)
    shines = [surface.shines for surface in canvas.surfaces]
    for x, y, radius, colour in canvas.glows:
        if 0 <= x < columns and 0 <= y < rows and shines[int(canvas.numbers[y, x])]:
            strength = max(20, 110 - weather.light)
            for ring in (6, 4, 2):  # three discs on top of each other fall off as light does
                tone = (
                    colour[0] * strength // (60 * ring),
                    colour[1] * strength // (60 * ring),
                    colour[2] * strength // (60 * ring),
                )
                cv2.circle(halo, (x // 4, y // 4), max(1, min(26, radius // 6) * ring // 6), tone, -1)
    halo = cv2.GaussianBlur(halo, (21, 21), 0)
    return cv2.add(image, cv2.resize(halo, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT))


def _lie_snow(canvas: Canvas, rng: Random, image: Bytes, strength: float) -> Bytes:
    """Snow that lies on the ground, in patches, less on the road."""
    rows, columns = canvas.numbers.shape
    share_of = np.zeros(len(canvas.surfaces), np.int16)
    for number, surface in enumerate(canvas.surfaces):
        if surface.depth == GROUND:
            share_of[number] = round(strength * (110 if surface.label in (ROAD, LANE) else 230))
    patches = cv2.resize(
        rng.integers(0, 256, (24, 40), dtype=np.uint8), (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT
    )
    share = (share_of[canvas.numbers] * (patches.astype(np.int16) // 2 + 64) >> 7).clip(0, 235).astype(np.uint8)
    return _blend(image, share, (226, 230, 236))


def _rain(rng: Random, image: Bytes, weather: Weather) -> Bytes:
    """Streaks before the lens, and a wet, paler picture."""
    rows, columns = image.shape[:2]
    streaks = np.zeros((rows, columns), np.uint8)
    slant = int(rng.integers(-9, 10))
    count = int(weather.rain * 900)
    starts = rng.integers(0, (columns, rows), (count, 2))
    lengths = rng.integers(10, 34, count)
    for (x, y), length in zip(starts.tolist(), lengths.tolist(), strict=True):
        cv2.line(streaks, (x, y), (x + slant * length // 30, y + length), 34 + length, 1)
    veil = cv2.GaussianBlur(streaks, (3, 3), 0)
    return cv2.add(image, cv2.merge([veil, veil, veil]))


def _flakes(rng: Random, image: Bytes, weather: Weather) -> Bytes:
    rows, columns = image.shape[:2]
    flakes = np.zeros((rows, columns), np.uint8)
    count = int(weather.snow * 700)
    places = rng.integers(0, (columns, rows), (count, 2))
    radii = rng.integers(1, 4, count)
    for (x, y), radius in zip(places.tolist(), radii.tolist(), strict=True):
        cv2.circle(flakes, (x, y), radius, 190 if weather.light > 60 else 110, -1)
    veil = cv2.GaussianBlur(flakes, (5, 5), 0)
    return cv2.add(image, cv2.merge([veil, veil, veil]))


def _sensor(rng: Random, image: Bytes, weather: Weather) -> Bytes:
    """Lens blur, then sensor noise, stronger in the dark."""
    size = 5 if rng.random() < 0.25 else 3
    soft = cv2.GaussianBlur(image, (size, size), 0)
    amount = 5 + int(rng.integers(6)) + (8 if weather.light < 45 else 0)
    rows, columns = image.shape[:2]
    tile = rng.integers(0, 2 * amount + 1, (192, 320, 3), dtype=np.uint8)
    noise = np.tile(tile, (rows // 192 + 1, columns // 320 + 1, 1))[:rows, :columns]
    middle = np.full_like(soft, amount)
    return cv2.subtract(cv2.add(soft, noise), middle)
