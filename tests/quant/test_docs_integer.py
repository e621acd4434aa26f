"""Executes the tables of docs/integer.md: every row of every table is a claim about the code."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quant import arith, fixed_point, params, postprocess
from quant.certificate import CertificateError, check, conv_bound
from quant.fold import fold_batch_norm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integer.md"
Row = dict[str, str]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_tables(text: str) -> dict[str, list[Row]]:
    """Tables by name: `Table: name`, an empty line, then header, rule and rows. A repeated column name gets a 2."""
    lines = text.splitlines()
    tables: dict[str, list[Row]] = {}
    for index, line in enumerate(lines):
        if line.startswith("Table: "):
            header = cells(lines[index + 2])
            names = [name + "2" * header[:position].count(name) for position, name in enumerate(header)]
            rows = []
            for row in lines[index + 4 :]:
                if not row.startswith("|"):
                    break
                rows.append(dict(zip(names, cells(row), strict=True)))
            tables[line.removeprefix("Table: ")] = rows
    return tables


def integers(cell: str) -> list[int]:
    return [int(part) for part in cell.split(",")]


def reals(cell: str) -> np.ndarray:
    return np.array([float(Fraction(part.strip())) for part in cell.split(",")], np.float32)


def optional(cell: str) -> int | None:
    return None if cell == "-" else int(cell)


def pixel_of(values: list[int]) -> np.ndarray:
    """Channels of one pixel, which are also the weights of one 1x1 output: (1, 1, 1, C)."""
    return np.array(values, np.int8).reshape(1, 1, 1, -1)


def value(row: Row) -> None:
    assert Fraction(row["real"]) == int(row["q"]) * Fraction(params.scale_of(int(row["shift"])))


def pixel(row: Row) -> None:
    assert arith.quantize_pixels(np.uint8([int(row["pixel"])])) == int(row["q"])
    assert Fraction(row["real"]) == Fraction(int(row["q"]), 1 << arith.INPUT_SHIFT)


def divide(row: Row) -> None:
    a, n = int(row["a"]), int(row["n"])
    assert Fraction(row["a / 2^n"]) == Fraction(a, 1 << n)
    assert arith.divide_half_even(a, n) == int(row["result"])


def requantize(row: Row) -> None:
    assert arith.requantize(int(row["acc"]), int(row["sa"]), int(row["sy"])) == int(row["q"])


def convolution(row: Row) -> None:
    x, weight, bias = pixel_of(integers(row["x"])), pixel_of(integers(row["w"])), np.int32([int(row["b"])])
    assert arith.convolve(x, weight) + bias == int(row["acc"])
    got = arith.conv_layer(
        x,
        int(row["sx"]),
        weight,
        np.array([int(row["sw"])]),
        bias,
        relu=row["relu"] == "yes",
        out_shift=int(row["sy"]),
    )
    assert got == int(row["q"])


def residual(row: Row) -> None:
    grid, shift = int(row["grid"]), int(row["sr"])
    total = arith.align(int(row["acc"]), grid, max(grid, shift)) + arith.align(int(row["r"]), shift, max(grid, shift))
    assert total == int(row["sum"])
    got = arith.conv_layer(
        pixel_of([1]),
        0,
        pixel_of([0]),
        np.array([grid]),
        np.int32([int(row["acc"])]),
        relu=row["relu"] == "yes",
        out_shift=int(row["sy"]),
        residual=pixel_of([int(row["r"])]),
        residual_shift=shift,
    )
    assert got == int(row["q"])


def add(row: Row) -> None:
    a, b = pixel_of([int(row["a"])]), pixel_of([int(row["b"])])
    settings: dict[str, Any] = {"relu": row["relu"] == "yes", "out_shift": int(row["sy"])}
    assert arith.add_layer(a, int(row["sa"]), b, int(row["sb"]), **settings) == int(row["q"])


def pool(row: Row) -> None:
    window = integers(row["window"])
    kernel = round(len(window) ** 0.5)
    x = np.array(window, np.int8).reshape(1, kernel, kernel, 1)
    assert arith.average_pool(x, kernel, kernel, int(row["sx"]), int(row["sy"])) == int(row["q"])


def argmax(row: Row) -> None:
    assert arith.channel_argmax(pixel_of(integers(row["channels"]))) == int(row["class"])


def activation_shift(row: Row) -> None:
    assert params.choose_activation_shift(float(Fraction(row["m"]))) == int(row["s"])


def fold(row: Row) -> None:
    w, b, gamma, beta, mean, variance = (reals(row[name]) for name in ("w", "b", "γ", "β", "μ", "σ²"))
    weight, bias = fold_batch_norm(w.reshape(1, 1, 1, 1), b, gamma, beta, mean, variance, float(row["ε"]))
    assert (weight.item(), bias.item()) == (float(row["w'"]), float(row["b'"]))


def certificate(row: Row) -> None:
    bound = conv_bound(
        pixel_of(integers(row["w"])),
        [int(row["sw"])],
        np.int32([int(row["b"])]),
        input_shift=int(row["sx"]),
        input_max=int(row["max x"]),
        residual_shift=optional(row["sr"]),
    )
    assert bound.float_bound == int(row["B"])
    if row["accepted"] == "yes":
        check([bound])
    else:
        with pytest.raises(CertificateError):
            check([bound])


def weight_shift(row: Row) -> None:
    weight, bias = reals(row["w"]).reshape(1, -1), reals(row["b"])
    known: dict[str, Any] = {"input_shift": int(row["sx"]), "input_max": int(row["max x"])}
    known["residual_shift"] = optional(row["sr"])
    shift = params.choose_weight_shift(weight, bias, **known)
    assert shift == int(row["sw"])
    integer_bias = params.quantize_bias(bias, shift + known["input_shift"])
    bound = conv_bound(params.quantize_weight(weight, shift), shift, integer_bias, **known)
    assert bound.float_bound == int(row["B"])


def score_threshold(row: Row) -> None:
    expected = int(row["box_filter_threshold"])
    assert postprocess.filter_threshold(float(row["probability"]), int(row["score shift"])) == expected


def exp(row: Row) -> None:
    assert postprocess.exp_table(int(row["s"]))[int(row["i"]) + 128] == int(row["T"])


def one_map(stride: int = 8, anchor: tuple[int, int] = (4, 4), input_shift: int = 5) -> postprocess.DetectionAttributes:
    return postprocess.DetectionAttributes(
        anchor_start_addr=(0,),
        num_anchors=(1,),
        class_num_list=(1,),
        class_offset_list=(0,),
        feature_stride_h=(stride,),
        feature_stride_w=(stride,),
        use_clipping_list=(False,),
        anchors=(anchor,),
        input_shift=input_shift,
        box_filter_threshold=0,
    )


def decode(row: Row) -> None:
    (line, column), (height, width) = integers(row["row, column"]), integers(row["anchor h, w"])
    attributes = one_map(int(row["stride"]), (4 * height, 4 * width), int(row["s"]))
    scores = np.full((1, 4, 5, 1), -1, np.int8)
    scores[0, line, column] = 1
    deltas = np.zeros((1, 4, 5, 4), np.int8)
    deltas[0, line, column] = integers(row["dx, dy, dw, dh"])
    rows = postprocess.detection_post_processing([scores], [deltas], attributes, np.array([[1, 1]], np.int32))
    assert rows[0].tolist() == [*integers(row["x1, y1, x2, y2"]), 1, 0]


def suppression(row: Row) -> None:
    boxes = [
        [*integers(row[f"{name}"]), int(row[score]), 0] for name, score in (("kept", "score"), ("other", "score2"))
    ]
    fields = one_map().__dict__ | {"nms_threshold": int(row["nms_threshold"]), "nms_margin": int(row["nms_margin"])}
    kept = postprocess.suppress(np.array(boxes, np.int64), postprocess.DetectionAttributes(**fields))
    assert len(kept) == (2 if row["other stays"] == "yes" else 1)


def box_record(row: Row) -> None:
    fields = {"x1": 300, "y1": -2, "x2": 1000, "y2": 77, "score": -9, "class": 201}
    packed = postprocess.pack_hardware(np.array([list(fields.values())], np.int32))
    start = 16 + int(row["byte"])
    size = np.dtype(row["type"]).itemsize
    assert packed[start : start + size].view(np.dtype(row["type"]).newbyteorder("<")) == fields[row["field"]]


def multiplier(row: Row) -> None:
    found = fixed_point.multiplier(Fraction(row["R"]))
    assert (found.m, found.n) == (int(row["m"]), int(row["n"]))


def scaled(row: Row) -> None:
    found = fixed_point.multiplier(Fraction(row["R"]))
    assert fixed_point.scale([int(row["acc"])], found.m, found.n)[0] == int(row["q"])


EXECUTORS: dict[str, Callable[[Row], None]] = {
    "value": value,
    "pixel": pixel,
    "divide": divide,
    "requantize": requantize,
    "convolution": convolution,
    "residual": residual,
    "add": add,
    "pool": pool,
    "argmax": argmax,
    "activation shift": activation_shift,
    "fold": fold,
    "certificate": certificate,
    "weight shift": weight_shift,
    "score threshold": score_threshold,
    "exp": exp,
    "decode": decode,
    "suppression": suppression,
    "box record": box_record,
    "multiplier": multiplier,
    "scaled": scaled,
}
TABLES = read_tables(PAGE.read_text(encoding="utf-8"))
CLAIMS = [(name, row) for name, rows in TABLES.items() for row in rows]


def test_every_table_of_the_page_is_executed() -> None:
    assert TABLES.keys() == EXECUTORS.keys()
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("\n| --- |") == len(TABLES), "a table without a `Table:` line before it"
    assert min(len(rows) for rows in TABLES.values()) >= 3


@pytest.mark.parametrize(("name", "row"), CLAIMS, ids=[f"{name}-{' '.join(row.values())}" for name, row in CLAIMS])
def test_row(name: str, row: Row) -> None:
    EXECUTORS[name](row)


@pytest.mark.parametrize(("name", "row"), [(name, rows[0]) for name, rows in TABLES.items() if name != "box record"])
def test_a_wrong_number_is_noticed(name: str, row: Row) -> None:
    """Changes the last number of a table's first row: an executor that compared nothing would pass."""
    results = {"requantize": "q", "suppression": "other stays", "certificate": "B"}
    column = results.get(name, list(row)[-1])
    wrong = {"yes": "no"}.get(row[column]) or ", ".join(str(Fraction(part) + 3) for part in row[column].split(","))
    with pytest.raises(AssertionError):
        EXECUTORS[name](row | {column: wrong})
