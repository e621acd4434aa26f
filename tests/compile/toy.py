"""The toy: a network of two tasks that has one of every layer, and the config that goes with it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from compile.build import STEP_3
from compile.files import load_pair, save_pair
from runtime.engine import CompiledEngine
from tests.compile.models import NO_BATCH_NORM, ModelBuilder

HW = (72, 104)
SOURCE_HW = (144, 192)
HEADS = (
    "det_rear.score_s8",
    "det_rear.delta_s8",
    "det_rear.score_s16",
    "det_rear.delta_s16",
    "seg_lane.logits",
)
DEAD_CHANNEL = 5  # of backbone.block.first: 0 behind its ReLU, whatever the picture
ALL = "."
OF_HEADS = r"(?!backbone\.|neck\.)"

ADDITIONS = {
    "multitask.py": f"""
tasks = [det_rear, seg_lane]
int_inference_export_input_shape = {{"image": (1, {HW[0]}, {HW[1]}, 3), "im_hw": (1, 2)}}
""",
    "utils.py": f"""
geometries = [
    {{
        "name": "toy",
        "source_hw": {SOURCE_HW},
        "pyramid_hw": (72, 96),
        "pad_right": 8,
        "height": {HW[0]},
        "width": {HW[1]},
    }},
]
""",
    "det_rear.py": """
head = {"kind": "anchors", "strides": (8, 16), "channels": 64, "anchors": [[(14.0, 20.5), (30.0, 24.0)]] * 2}
post_processing = {"score_threshold": 0.3, "nms_output_bbox_num": 20}
""",
}


def toy_network(
    *, quantized: bool = True, batch_norms: str = NO_BATCH_NORM, seed: int = 0, hw: tuple[int, int] = HW
) -> onnx.ModelProto:
    """Step 2 as it stands; step 1 with `batch_norms=OF_HEADS`, step 0 with ALL, float-trained if not `quantized`."""
    b = ModelBuilder(hw, seed=seed, quantized=quantized, batch_norms=batch_norms)
    stem = b.unit("backbone.stem", b.image(), 8, stride=2, shift=5)
    grouped = b.unit("backbone.down.grouped", stem, 16, stride=2, groups=2, relu=True, shift=5)
    down = b.unit("backbone.down.pointwise", grouped, 12, kernel=1, bias=False, shift=5)
    first = b.unit("backbone.block.first", down, 12, groups=3, relu=True, shift=6)
    b.parameters["backbone.block.first.conv.bias"][DEAD_CHANNEL] = -16  # far below what its weights can make up for
    main = b.conv("backbone.block.second", first, 12, kernel=1)
    s4 = b.sum("backbone.block", main, down, shift=5)
    branches = [b.unit(f"backbone.merge.{side}", s4, 10, stride=2, shift=shift) for side, shift in (("a", 5), ("b", 4))]
    s8 = b.sum("backbone.merge", *branches, shift=5)
    s16 = b.unit("backbone.last", s8, 16, stride=2, relu=True, shift=5)

    reduced = b.unit("neck.reduction", s16, 10, kernel=1, shift=4)
    p8 = b.sum("neck.sum", b.upsample("neck", reduced, (hw[0] // 8, hw[1] // 8)), s8, shift=4)
    pooled = b.pool("neck.pool", s4, shift=5)
    joined = b.concat("neck.joined", [p8, pooled], shift=4)

    outputs = {}
    for stride, feature in ((8, joined), (16, s16)):
        hidden = b.unit(f"det_rear.features_s{stride}", feature, 9, relu=True, shift=5)
        for part, channels, shift in (("score", 4, 4), ("delta", 8, 5)):
            name = f"det_rear.{part}_s{stride}"
            outputs[name] = b.quantize(name, b.conv(f"{name}.predict", hidden, channels, kernel=1), shift)
    features = b.unit("seg_lane.features", s4, 7, relu=True, shift=5)
    outputs["seg_lane.logits"] = b.unit("seg_lane.logits", features, 4, kernel=1, shift=4)
    return b.finish(outputs)


def write_toy_config(repository: Path, folder: Path) -> Path:
    """The toy's config in `folder`, from a copy of the resize config; returns its file."""
    target = folder / "toy"
    shutil.copytree(repository / "configs/4pe_resize", target, ignore=shutil.ignore_patterns("__pycache__"))
    for name, addition in ADDITIONS.items():
        with (target / name).open("a") as file:
            file.write(addition)
    return target / "multitask.py"


@dataclass(frozen=True)
class Run:
    """A run's folder with what belongs to it."""

    config: Path
    folder: Path
    pictures: Path

    @property
    def step_2(self) -> Path:
        return self.folder / "fusion-bn-c2-export-last.onnx"

    @property
    def prefix(self) -> Path:
        """Of the four files of step 3."""
        return self.folder / STEP_3

    def file(self, suffix: str) -> Path:
        return self.folder / f"{STEP_3}{suffix}"

    def build_arguments(self, *more: str) -> list[str]:
        return ["--config", str(self.config), "--out", str(self.folder), *more]

    def verify_arguments(self, *more: str) -> list[str]:
        return [*self.build_arguments(), "--images", str(self.pictures), *more]

    def with_config(self, folder: Path, file: str, addition: str) -> "Run":
        """The same run under a copy of its config in `folder`, with lines added to one of its files."""
        copy = Path(shutil.copytree(self.config.parent, folder))
        with (copy / file).open("a") as config:
            config.write(f"\n{addition}\n")
        return Run(copy / self.config.name, self.folder, self.pictures)

    def outputs(self, picture: np.ndarray, im_hw: tuple[int, int] = HW) -> dict[str, np.ndarray]:
        """What the `.so` returns."""
        return CompiledEngine(self.file(".so")).run(picture, im_hw)

    def change_parameter(self, name: str, place: tuple[int, ...], by: int) -> None:
        """Plants a fault in `-0000.params`."""
        module, parameters = load_pair(self.prefix)
        value = parameters[name].copy()
        value[place] += by
        save_pair(self.prefix, module, parameters | {name: value})
