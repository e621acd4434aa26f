"""Label masks as they were stored: OpenCV alone would stretch grey of 1, 2 or 4 bits over 0 to 255."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH, COLOR_TYPE, GREY = 24, 25, 0  # places in a file, and the type that is one channel of numbers


Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def decode_labels(content: bytes) -> Pixels | None:
    """(h, w) values of a grey picture, or BGR (h, w, 3 or 4) of one in colour or with a palette; None if it is none."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if pixels is None:
        return None
    if content.startswith(SIGNATURE) and content[COLOR_TYPE] == GREY and content[BIT_DEPTH] < 8:
        return (pixels // (255 // (2 ** content[BIT_DEPTH] - 1))).astype(np.uint8)
    return pixels
