"""`DetectionPostProcessing_X2` as TensorIR: from int8 scores and deltas to boxes, equal to quant/postprocess.py.

One function in four parts, integers only: decode the anchors that pass the threshold, order them (a counting sort,
which is stable), suppress greedily per class, write the hardware layout. Products of coordinates are int64: int32
overflows at these sizes.
"""

import numpy as np
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812  # the name that TVM's own printer and texts use

from compile.errors import CompileError
from quant.arith import INT8_MIN
from quant.postprocess import QUARTERS, RECORD_BYTES, ROW_FIELDS, DetectionAttributes

# Columns of the table that describes the feature maps.
LEVEL_FIELDS = ("rows", "columns", "num_anchors", "stride_h", "stride_w", "anchor_start", "class_offset", "clip")
OPERATOR = "DetectionPostProcessing_X2"
COORDINATE_MAX = (1 << 15) - 1  # of the hardware layout
AT_ONCE = 32  # anchors


def level_table(attributes: DetectionAttributes, map_sizes: list[tuple[int, int]]) -> np.ndarray:
    """int32 (maps, 8), one row of LEVEL_FIELDS for each feature map of `map_sizes` (rows, columns)."""
    columns = zip(
        map_sizes,
        attributes.num_anchors,
        attributes.feature_stride_h,
        attributes.feature_stride_w,
        attributes.anchor_start_addr,
        attributes.class_offset_list,
        attributes.use_clipping_list,
        strict=True,
    )
    return np.array([[*size, *rest] for size, *rest in columns], np.int32)


def class_count(attributes: DetectionAttributes) -> int:
    """Classes per anchor, which all maps share."""
    counts = set(attributes.class_num_list)
    if len(counts) != 1:
        raise CompileError(
            f"class_num_list {attributes.class_num_list}: all maps of a task need the same number of classes"
        )
    return counts.pop()


def detection_function(attributes: DetectionAttributes, anchor_total: int) -> tirx.PrimFunc:
    """The PrimFunc for a task's settings and its number of anchors N = `anchor_total`.

    Parameters: scores (N, C) and deltas (N, 4) int8, exp_table (256,), anchors (anchors, 2), levels (maps, 8) and im_hw
    (1, 2) int32; written are rows (capacity, 6) int32 and packed (bytes,) uint8.
    """
    classes, level_count, anchor_count = class_count(attributes), len(attributes.num_anchors), len(attributes.anchors)
    capacity, threshold = attributes.nms_output_bbox_num, attributes.box_filter_threshold
    nms_threshold, margin = attributes.nms_threshold, attributes.nms_margin
    shift_right, shift_left = max(attributes.input_shift, 0), max(-attributes.input_shift, 0)
    exp_shift = attributes.exp_output_shift
    half_cell = QUARTERS // 2
    packed_size = RECORD_BYTES * (1 + capacity)

    @T.prim_func(private=True, s_tir=True)
    def detection_post_processing(
        scores: T.Buffer((anchor_total, classes), "int8"),
        deltas: T.Buffer((anchor_total, 4), "int8"),
        exp_table: T.Buffer((256,), "int32"),
        anchors: T.Buffer((anchor_count, 2), "int32"),
        levels: T.Buffer((level_count, len(LEVEL_FIELDS)), "int32"),
        im_hw: T.Buffer((1, 2), "int32"),
        rows: T.Buffer((capacity, ROW_FIELDS), "int32"),
        packed: T.Buffer((packed_size,), "uint8"),
    ):
        T.func_attr({"tirx.noalias": True, "op": OPERATOR})
        with T.sblock("root"):
            T.reads(scores[0, 0], deltas[0, 0], exp_table[0], anchors[0, 0], levels[0, 0], im_hw[0, 0])
            T.writes(rows[0, 0], packed[0])
            flat_scores = T.decl_buffer((anchor_total * classes,), "int8", data=scores.data)
            found = T.sblock_alloc_buffer((anchor_total, ROW_FIELDS), "int32")
            order = T.sblock_alloc_buffer((anchor_total,), "int32")
            starts = T.sblock_alloc_buffer((257,), "int32")
            # anchors seen, boxes found, boxes kept; the best of some scores, whether a box is suppressed
            state = T.sblock_alloc_buffer((4,), "int32")
            best = T.sblock_alloc_buffer((2,), "int32")  # score and class
            box = T.sblock_alloc_buffer((4,), "int64")
            kept = T.sblock_alloc_buffer((7, capacity), "int64")  # of kept boxes: edges, area, score, class
            for index in range(4):
                state[index] = 0
            for index in range(257):
                starts[index] = 0

            # Decode, in the order of the anchors: map, row, column, anchor. Most scores are below the threshold, so of
            # AT_ONCE anchors the best one is looked at first.
            for level in range(level_count):
                first: T.let = state[0]
                count: T.let = levels[level, 0] * levels[level, 1] * levels[level, 2]
                state[0] = first + count
                for some in range((count + AT_ONCE - 1) // AT_ONCE):
                    state[3] = threshold
                    if (some + 1) * AT_ONCE <= count:
                        state[3] = T.Cast(
                            "int32",
                            T.call_llvm_pure_intrin(
                                "int8",
                                "llvm.vector.reduce.smax",
                                flat_scores[T.ramp((first + some * AT_ONCE) * classes, 1, AT_ONCE * classes)],
                            ),
                        )
                    if state[3] >= threshold:
                        for index in range(T.min(count - some * AT_ONCE, AT_ONCE)):
                            anchor: T.let = first + some * AT_ONCE + index
                            slot: T.let = (anchor - first) % levels[level, 2]
                            column: T.let = (anchor - first) // levels[level, 2] % levels[level, 1]
                            row: T.let = (anchor - first) // levels[level, 2] // levels[level, 1]
                            best[0] = T.Cast("int32", scores[anchor, 0])
                            best[1] = 0
                            for offset in range(classes - 1):
                                if T.Cast("int32", scores[anchor, offset + 1]) > best[0]:
                                    best[0] = T.Cast("int32", scores[anchor, offset + 1])
                                    best[1] = offset + 1
                            if best[0] >= threshold:
                                size_h: T.let = T.Cast("int64", anchors[levels[level, 5] + slot, 0])
                                size_w: T.let = T.Cast("int64", anchors[levels[level, 5] + slot, 1])
                                box_w: T.let = (
                                    T.Cast("int64", exp_table[T.Cast("int32", deltas[anchor, 2]) - INT8_MIN]) * size_w
                                ) >> exp_shift
                                box_h: T.let = (
                                    T.Cast("int64", exp_table[T.Cast("int32", deltas[anchor, 3]) - INT8_MIN]) * size_h
                                ) >> exp_shift
                                center_x: T.let = T.Cast("int64", (2 * column + 1) * levels[level, 4] * half_cell) + (
                                    ((T.Cast("int64", deltas[anchor, 0]) * size_w) << shift_left) >> shift_right
                                )
                                center_y: T.let = T.Cast("int64", (2 * row + 1) * levels[level, 3] * half_cell) + (
                                    ((T.Cast("int64", deltas[anchor, 1]) * size_h) << shift_left) >> shift_right
                                )
                                box[0] = center_x - (box_w >> 1)
                                box[1] = center_y - (box_h >> 1)
                                box[2] = box[0] + box_w
                                box[3] = box[1] + box_h
                                if levels[level, 7] != 0:
                                    for side in range(4):
                                        limit: T.let = T.Cast("int64", im_hw[0, 1 - side % 2] * QUARTERS)
                                        box[side] = T.max(T.min(box[side], limit), T.int64(0))
                                if box[2] > box[0] and box[3] > box[1]:
                                    number: T.let = state[1]
                                    for side in range(4):
                                        found[number, side] = T.Cast("int32", box[side])
                                    found[number, 4] = best[0]
                                    found[number, 5] = best[1] + levels[level, 6]
                                    starts[128 - best[0]] = starts[128 - best[0]] + 1
                                    state[1] = number + 1

            # Order by descending score; equal scores keep the order of the anchors. A score q has the bucket 127 - q.
            for bucket in range(256):
                starts[bucket + 1] = starts[bucket + 1] + starts[bucket]
            for number in range(state[1]):
                place: T.let = starts[127 - found[number, 4]]
                order[place] = number
                starts[127 - found[number, 4]] = place + 1

            # Suppress: a box stays unless a kept one of its class, better by more than the margin, overlaps it too
            # much.
            for row, field in T.grid(capacity, ROW_FIELDS):
                rows[row, field] = -1
            for rank in range(state[1]):
                if state[2] < capacity:
                    candidate: T.let = order[rank]
                    state[3] = 0
                    for side in range(4):
                        box[side] = T.Cast("int64", found[candidate, side])
                    area: T.let = (box[2] - box[0]) * (box[3] - box[1])
                    for other in range(state[2]):  # without a branch: the compiler takes several at a time
                        width: T.let = T.max(T.min(kept[2, other], box[2]) - T.max(kept[0, other], box[0]), T.int64(0))
                        height: T.let = T.max(T.min(kept[3, other], box[3]) - T.max(kept[1, other], box[1]), T.int64(0))
                        overlap: T.let = width * height
                        suppressed: T.let = T.And(
                            T.And(
                                kept[6, other] == T.Cast("int64", found[candidate, 5]),
                                kept[5, other] - T.Cast("int64", found[candidate, 4]) > T.int64(margin),
                            ),
                            T.int64(256) * overlap > T.int64(nms_threshold) * (kept[4, other] + area - overlap),
                        )
                        state[3] = state[3] | T.Cast("int32", suppressed)
                    if state[3] == 0:
                        for field in range(ROW_FIELDS):
                            rows[state[2], field] = found[candidate, field]
                        for side in range(4):
                            kept[side, state[2]] = box[side]
                        kept[4, state[2]] = area
                        for field in range(4, ROW_FIELDS):
                            kept[field + 1, state[2]] = T.Cast("int64", found[candidate, field])
                        state[2] = state[2] + 1

            # The hardware layout, little-endian: header, then per box four int16, an int8 score, a uint8 class and
            # padding.
            for index in range(packed_size):
                packed[index] = T.uint8(0)
            for index in range(4):
                packed[index] = T.Cast("uint8", ((state[2] * RECORD_BYTES) >> (8 * index)) & 255)
            for number in range(state[2]):
                base: T.let = RECORD_BYTES * (number + 1)
                for side in range(4):
                    coordinate: T.let = T.max(T.min(rows[number, side], COORDINATE_MAX), -COORDINATE_MAX - 1)
                    packed[base + 2 * side] = T.Cast("uint8", coordinate & 255)
                    packed[base + 2 * side + 1] = T.Cast("uint8", (coordinate >> 8) & 255)
                packed[base + 8] = T.Cast("uint8", rows[number, 4] & 255)
                packed[base + 9] = T.Cast("uint8", rows[number, 5])

    return detection_post_processing
