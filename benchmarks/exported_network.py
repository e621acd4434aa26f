"""The network of `configs/4pe_resize` in the forms that engines take: what `benchmarks/engines.py` compares them on.

The weights are those of a pipeline test: speed does not depend on them.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from contenders import Image
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from compile.build import STEP_3, build_integer_module, build_library
from compile.targets import find_target
from configs import Config
from configs.task import SceneSource
from quant.fake import Quantized
from runtime.artifact import load_artifact
from runtime.geometry import Placement
from runtime.schema import InputGeometry, Reader
from train.checkpoint import load_checkpoint
from train.data.dataset import open_source
from train.export import export_onnx, network_image
from train.run import Run as RunFolder
from train.steps import prepare

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "configs/4pe_resize/multitask.py"
SCENES = SceneSource(kind="scenes", seed=6_000_000, count=32)  # what the others calibrate on, and the picture


@dataclass(frozen=True)
class Network:
    """The network at one export size, with all that an engine needs of it.

    `calibration` are pictures for the quantizers, the first of which is the one that is timed.
    """

    folder: Path
    im_hw: tuple[int, int]
    picture: NDArray[np.uint8]
    calibration: list[Image]
    float_network: nn.Module

    @property
    def float_onnx(self) -> Path:
        """Batch norms absorbed, nothing quantized."""
        return self.folder / "float.onnx"

    @property
    def step_2(self) -> Path:
        """With Q/DQ."""
        return self.folder / "fusion-bn-c2-export-last.onnx"

    @property
    def library(self) -> Path:
        """The compiled model."""
        return self.folder / f"{STEP_3}.so"

    @property
    def macs(self) -> int:
        """Multiply-adds of a picture: the network's own."""
        return sum(layer["macs"] for layer in load_artifact(self.library).layers)

    @property
    def size(self) -> str:
        """Of the network input."""
        _, height, width, _ = self.picture.shape
        return f"{height}x{width}"


def trained_run(folder: Path) -> Path:
    """The checkpoint of step 2 of a pipeline test, made if it is not there."""
    checkpoint = RunFolder(folder).last(2)
    if not checkpoint.is_file():
        script = REPOSITORY / "tools/quanti_training_2step_fusion_bn.sh"
        command = ["bash", str(script), "--config", str(CONFIG), "--pipeline-test", "--out", str(folder.resolve())]
        with_this_python = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        subprocess.run(command, cwd=REPOSITORY, env=os.environ | with_this_python, check=True)
    return checkpoint


def at_size(config: Config, hw: tuple[int, int]) -> Config:
    """The config for another export size."""
    shape = config.int_inference_export_input_shape
    sized = shape.model_copy(update={"image": (1, *hw, 3)})
    return config.model_copy(update={"int_inference_export_input_shape": sized})


def make_network(config: Config, checkpoint: Path, folder: Path, console: Console) -> Network:
    """Exports and builds the network for the config's size."""
    folder.mkdir(parents=True, exist_ok=True)
    geometry = InputGeometry.from_json(Reader(config.deployment()["input"], "config"))
    placements = []
    for sample in open_source(SCENES):
        placement = Placement.of(sample.picture.shape[:2], geometry)
        placements.append((placement.valid_hw, placement.network_input(sample.picture)))
    floating = export_form(config, checkpoint, quantized=False)
    network = Network(folder, *placements[0], [network_image(picture) for _, picture in placements], floating)
    export_onnx(floating, config.input_hw, config.output_names, network.float_onnx)
    export_onnx(export_form(config, checkpoint, quantized=True), config.input_hw, config.output_names, network.step_2)
    build_integer_module(config, folder, network.step_2, None)
    build_library(folder, find_target("native"), None, console)
    return network


def export_form(config: Config, checkpoint: Path, *, quantized: bool) -> nn.Module:
    """Step 2's network as it is exported, or the same without quantization."""
    prepared = prepare(config, 2, start=load_checkpoint(checkpoint), before=None)
    if not quantized:
        for module in prepared.network.modules():
            if isinstance(module, Quantized):
                module.quantized = False
    return prepared.export_model()
