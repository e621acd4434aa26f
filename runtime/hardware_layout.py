"""Reader of the chip's layout of boxes, the output `<task>.packed` of a compiled model.

A header of 16 bytes, whose first int32 is 16 times the count of boxes; then per box 16 bytes: four int16 x1, y1, x2, y2
in quarter pixels of the network input, an int8 score, a uint8 class, six bytes of 0. All little-endian. What follows
the last box is free.
"""

import numpy as np
import numpy.typing as npt

from runtime.errors import UsageError

RECORD = np.dtype([("box", "<i2", 4), ("score", "i1"), ("class", "u1"), ("padding", "V6")])
HEADER_BYTES = 16


def read_boxes(data: bytes | npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Rows (n, 6) x1, y1, x2, y2, score, class, best first, as `<task>.boxes` has them, without its unused rows.

    Coordinates beyond int16 were saturated when they were written. UsageError if the bytes are cut off or no such
    layout.
    """
    content = data if isinstance(data, bytes) else np.ascontiguousarray(data, np.uint8).tobytes()
    if len(content) < HEADER_BYTES:
        raise UsageError(f"{len(content)} bytes are no boxes in the chip's layout: its header alone has {HEADER_BYTES}")
    size = int(np.frombuffer(content, "<i4", 1)[0])
    if size < 0 or size % RECORD.itemsize or any(content[4:HEADER_BYTES]):
        raise UsageError(f"the header {content[:HEADER_BYTES].hex()} is none of the chip's layout of boxes")
    if len(content) < HEADER_BYTES + size:
        raise UsageError(
            f"cut off: the header announces {size // RECORD.itemsize} boxes, {HEADER_BYTES + size} bytes with it, "
            f"there are {len(content)}"
        )
    records = np.frombuffer(content, RECORD, size // RECORD.itemsize, HEADER_BYTES)
    fields = records["box"], records["score"][:, None], records["class"][:, None]
    return np.concatenate([field.astype(np.int32) for field in fields], axis=1)
