"""A tiny compiled model with the interface of the real one, and a fake engine: the room's tests need no compiler
room."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.artifact import Manifest, file_sha256, manifest_path
from runtime.schema import ClassEntry, DetectionTask, InputGeometry, Output, SegmentationTask

GEOMETRY = InputGeometry("80x128", (80, 128), (40, 64), 8, 0, 8, 32, 72, "resize")
SHIFT = 4
DETECT = DetectionTask(
    name="det_thing",
    classes=(ClassEntry("thing", (255, 0, 0)), ClassEntry("other thing", (0, 255, 0))),
    strides=(8,),
    anchors=(((8.0, 8.0),),),
    score_threshold=0.3,
    box_filter_threshold=-13,
    nms_threshold=179,
    nms_margin=-1,
    nms_output_bbox_num=100,
    use_clipping=True,
    score_shift=SHIFT,
    sigmoid_table=tuple(1 / (1 + math.exp(-q / 2**SHIFT)) for q in range(-128, 128)),
)
SEGMENT = SegmentationTask(
    name="seg_bright", classes=(ClassEntry("background", (0, 0, 0)), ClassEntry("bright", (0, 0, 255))), stride=4
)
OUTPUTS = (
    Output("det_thing.score_s8", (1, 4, 9, 3), "int8", SHIFT, "head", "det_thing"),
    Output("seg_bright.logits", (1, 8, 18, 3), "int8", SHIFT, "head", "seg_bright"),
    Output("det_thing.boxes", (100, 6), "int32", None, "boxes", "det_thing"),
    Output("det_thing.packed", (1616,), "uint8", None, "packed", "det_thing"),
    Output("seg_bright.mask", (1, 8, 18), "uint8", None, "mask", "seg_bright"),
)
MANIFEST = Manifest(
    input=GEOMETRY,
    uses_im_hw=True,
    tasks=(DETECT, SEGMENT),
    outputs=OUTPUTS,
    layers=({"name": "backbone.stem", "shift": SHIFT, "function": "conv"},),
    certificate=({"name": "backbone.stem", "bound": 12345.0},),
    target={"kind": "llvm"},
    library_sha256="0" * 64,
    sources={"int-inference-export-last-symbol.json": "1" * 64},
)


def _build_library(path: Path, score: int = 32) -> Path:
    """The model: one box of class 0, of this score, that spans im_hw; the mask tells where the red channel is over 127.

    The manifest lies beside it.
    """
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    picture = relax.Var("picture", relax.TensorType((1, 32, 72, 3), "uint8"))
    im_hw = relax.Var("im_hw", relax.TensorType((1, 2), "int32"))
    op = relax.op

    def constant(value: object, dtype: str) -> relax.Expr:
        return relax.const(np.array(value, dtype), dtype)

    def every(stride: int, channels: int) -> relax.Expr:
        return op.strided_slice(picture, [1, 2, 3], [0, 0, 0], [32, 72, channels], [stride, stride, 1])

    with builder.function("main", [picture, im_hw]):
        scores = builder.emit(op.right_shift(every(8, 3), constant(1, "uint8")))
        logits = builder.emit(op.right_shift(every(4, 3), constant(1, "uint8")))
        size = op.multiply(op.take(im_hw, constant([1, 0], "int64"), axis=1), constant(4, "int32"))
        row = op.concat([constant([[0, 0]], "int32"), size, constant([[score, 0]], "int32")], axis=1)
        boxes = builder.emit(op.concat([row, constant(np.full((99, 6), -1), "int32")], axis=0))
        mask = builder.emit(op.squeeze(op.right_shift(every(4, 1), constant(7, "uint8")), [3]))
        outputs = [op.astype(scores, "int8"), op.astype(logits, "int8"), boxes, constant(np.zeros(1616), "uint8"), mask]
        builder.emit_func_output(relax.Tuple([builder.emit(value) for value in outputs]))
    tvm.compile(builder.get(), tvm.target.Target({"kind": "llvm"})).export_library(str(path))
    dataclasses.replace(MANIFEST, library_sha256=file_sha256(path)).save(manifest_path(path))
    return path


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's .so, its manifest beside it. Shared: a test that changes a file copies both first."""
    return _build_library(tmp_path_factory.mktemp("model") / "tiny.so")


@pytest.fixture(scope="session")
def rebuilt_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after a change: its box has score 48."""
    return _build_library(tmp_path_factory.mktemp("rebuilt") / "tiny.so", score=48)


class FakeEngine:
    """Returns what it is told and remembers what it was given."""

    def __init__(self, boxes: list[list[int]], mask: np.ndarray | None = None) -> None:
        self.rows = np.full((100, 6), -1, np.int32)
        self.rows[: len(boxes)] = np.array(boxes, np.int32).reshape(-1, 6)
        self.mask = np.zeros((1, 8, 18), np.uint8) if mask is None else mask
        self.im_hw: tuple[int, int] | None = None

    def run(self, picture: np.ndarray, im_hw: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        assert picture.dtype == np.uint8
        assert picture.shape == (1, 32, 72, 3)
        self.im_hw = im_hw
        return {"det_thing.boxes": self.rows, "seg_bright.mask": self.mask}


@pytest.fixture
def fake_engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture
def manifest() -> Manifest:
    return MANIFEST


@pytest.fixture
def scene() -> np.ndarray:
    """A picture of the geometry's source size, dark on the left and bright on the right."""
    picture = np.full((80, 128, 3), 40, np.uint8)
    picture[:, 64:] = (220, 200, 180)
    return picture


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, np.ndarray], Path]:
    """Writes an RGB, RGBA or grey picture under a name in the test's folder and returns its path."""

    def write_picture(name: str, picture: np.ndarray, *options: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bgr = picture if picture.ndim == 2 else picture[..., [2, 1, 0, 3][: picture.shape[2]]]
        assert cv2.imwrite(str(path), np.ascontiguousarray(bgr), list(options))
        return path

    return write_picture
