"""How convolutions and poolings of a foreign graph go over their input."""

import onnx

from compile.foreign.model import attributes_of
from compile.foreign.network import Pads, Pair
from compile.foreign.reader import Reader


def pads_of(reader: Reader, node: onnx.NodeProto) -> Pads:
    """Explicit ones; CompileError where the runtime would have to find them."""
    values = attributes_of(node)
    if values.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise reader.model.error(node, f"auto_pad {values['auto_pad']}; export it with explicit pads")
    top, left, bottom, right = (int(size) for size in values.get("pads", (0, 0, 0, 0)))
    return top, left, bottom, right


def swept(hw: Pair, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair = (1, 1)) -> Pair:
    """Rows and columns of what a window makes of a map of `hw`: floor((size + pads - extent) / stride) + 1."""
    padded = hw[0] + pads[0] + pads[2], hw[1] + pads[1] + pads[3]
    rows, columns = (
        (size - far * (length - 1) - 1) // step + 1
        for size, length, step, far in zip(padded, kernel, stride, dilation, strict=True)
    )
    return rows, columns
