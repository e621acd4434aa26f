"""The pinhole camera of a scene: metres in front of the car to pixels.

Axes: x to the right, y up from the road, z forward, all in metres, the camera above (0, 0). Only additions, products,
quotients and square roots are used (correctly rounded by IEEE 754), so that a scene is the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Points = NDArray[np.float64]
Pixels = NDArray[np.int32]

FAR_PIXEL = 16000  # OpenCV's polygons are exact up to 2^15


@dataclass(frozen=True)
class Camera:
    """A camera looking along z: image size, focal length and principal point in pixels, its height in metres."""

    rows: int
    columns: int
    focal: float
    centre: float
    horizon: float
    height: float

    @property
    def nearest(self) -> float:
        """Distance of the road at the bottom row of the picture, metres."""
        return self.focal * self.height / (self.rows - self.horizon)

    def project(self, points: Points | Sequence[tuple[float, float, float]]) -> Pixels:
        """Metres (N, 3) to pixels (N, 2), x then y, int32; z must be positive."""
        metres = np.asarray(points, dtype=np.float64)
        depth = np.maximum(metres[:, 2], 0.2)
        x = self.centre + self.focal * metres[:, 0] / depth
        y = self.horizon + self.focal * (self.height - metres[:, 1]) / depth
        return np.clip(np.rint(np.stack([x, y], axis=1)), -FAR_PIXEL, FAR_PIXEL).astype(np.int32)

    def size(self, metres: float, depth: float) -> int:
        """Pixels that a length of `metres` covers at `depth`, at least 1."""
        return max(1, round(self.focal * metres / depth))
