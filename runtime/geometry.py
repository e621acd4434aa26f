"""How a picture lies in the network input, and the way back for boxes and masks.

Coordinates are those of pixel edges: a picture of width w spans 0..w. One rule serves every size. With the resize
geometry the picture is scaled so that its width fills the input's columns before padding; one of twice that width is
halved exactly. With the crop geometry it is not scaled. Rows are cut at the top, or padded at the
bottom with pixel 128.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from runtime.errors import UsageError
from runtime.image import Picture
from runtime.schema import InputGeometry

PAD_PIXEL = 128  # the network's zero
UNSEEN = 255  # in a mask: the network was not shown this pixel
QUARTER = 4  # boxes come in quarter pixels


@dataclass(frozen=True)
class Placement:
    """A picture of `picture_hw` is scaled to `scaled_hw`; its window from row `top`, column `left` on fills the input
    from its top left corner. The window has `valid_hw` pixels, the rest of `input_hw` is padding.
    """

    picture_hw: tuple[int, int]
    scaled_hw: tuple[int, int]
    top: int
    left: int
    valid_hw: tuple[int, int]
    input_hw: tuple[int, int]

    @classmethod
    def of(cls, picture_hw: tuple[int, int], geometry: InputGeometry) -> "Placement":
        """The placement that `geometry` prescribes for a picture of this size."""
        height, width = picture_hw
        if geometry.variant == "resize":
            columns = geometry.pyramid_hw[1]
            scaled_hw = (max(1, round(height * columns / width)), columns)
            top, left = max(0, scaled_hw[0] - geometry.height), 0
        else:
            scaled_hw = picture_hw
            # the window's middle row is at the same fraction of the height as in the geometry's own picture: at the
            # horizon
            middle = (geometry.cut_top + geometry.height / 2) / geometry.source_hw[0]
            top = min(max(0, round(middle * height - geometry.height / 2)), max(0, height - geometry.height))
            left = max(0, (width - geometry.width) // 2)
        valid_hw = min(scaled_hw[0] - top, geometry.height), min(scaled_hw[1] - left, geometry.width)
        return cls(picture_hw, scaled_hw, top, left, valid_hw, (geometry.height, geometry.width))

    @property
    def scale(self) -> tuple[float, float]:
        """Picture pixels per input pixel, (vertical, horizontal)."""
        return self.picture_hw[0] / self.scaled_hw[0], self.picture_hw[1] / self.scaled_hw[1]

    @property
    def window(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of what the network is shown, in pixels of the picture."""
        vertical, horizontal = self.scale
        bottom, right = self.top + self.valid_hw[0], self.left + self.valid_hw[1]
        return self.left * horizontal, self.top * vertical, right * horizontal, bottom * vertical

    def network_input(self, picture: Picture) -> Picture:
        """The picture, uint8 (h, w, 3) of `picture_hw`, as network input, uint8 (1, height, width, 3)."""
        if picture.shape[:2] != self.picture_hw:
            raise UsageError(f"this placement is for {self.picture_hw}, the picture is {picture.shape[:2]}")
        scaled = _scale(picture, self.scaled_hw)
        rows, columns = self.valid_hw
        result = np.full((1, *self.input_hw, 3), PAD_PIXEL, np.uint8)
        result[0, :rows, :columns] = scaled[self.top : self.top + rows, self.left : self.left + columns]
        return result

    def boxes_to_picture(self, boxes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Boxes (n, 4) x1, y1, x2, y2 in quarter pixels of the input, as pixels of the picture, clipped to it."""
        vertical, horizontal = self.scale
        edges = boxes.astype(np.float64) / QUARTER + [self.left, self.top, self.left, self.top]
        edges *= [horizontal, vertical, horizontal, vertical]
        height, width = self.picture_hw
        return np.clip(edges, 0, [width, height, width, height])

    def mask_to_picture(self, mask: npt.NDArray[np.uint8], stride: int) -> npt.NDArray[np.uint8]:
        """A class map (input height / stride, input width / stride) as one of the picture's size: every pixel gets the
        entry that its centre falls into, 255 where the network was not shown it.
        """
        axes = []
        for picture, scaled, offset, valid in zip(
            self.picture_hw, self.scaled_hw, (self.top, self.left), self.valid_hw, strict=True
        ):
            # floor((i + 1/2) · scaled / picture), in integers: exact where a centre lies on an edge
            centres = (2 * np.arange(picture) + 1) * scaled // (2 * picture) - offset
            axes.append((np.clip(centres, 0, valid - 1) // stride, (centres >= 0) & (centres < valid)))
        (rows, seen_rows), (columns, seen_columns) = axes
        result = mask.take(columns, axis=1).take(rows, axis=0)
        result[~seen_rows, :] = UNSEEN
        result[:, ~seen_columns] = UNSEEN
        return result


def _scale(picture: Picture, scaled_hw: tuple[int, int]) -> Picture:
    """Exactly halved, INTER_AREA is the pyramid's mean of 2x2 pixels, (a + b + c + d + 2) >> 2."""
    height, width = picture.shape[:2]
    if (height, width) == scaled_hw:
        return picture
    shrinking = scaled_hw[1] < width
    return cv2.resize(picture, scaled_hw[::-1], interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
