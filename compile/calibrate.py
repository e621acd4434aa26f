"""From an export that still has batch norms (step 0 or 1) to a Q/DQ model in step 2's place: fold, calibrate, write.

Activation scales that the graph carries (from quantization training) stay. Where it carries none (plain float training)
each tensor gets the power of two with the smallest squared error over the calibration pictures; the maps of a task's
scores share one, so do those of its deltas.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from compile.errors import CompileError
from compile.graph import Graph
from compile.importer import ImportedModel, import_onnx, read_onnx
from compile.onnx_writer import to_onnx
from compile.passes.fold_batch_norm import FoldBatchNorm, batch_norm_names
from compile.passes.place_activation_scales import tensors_without_scale
from compile.pipeline import folding_passes, phase_folder, run_passes, scale_passes
from compile.witness import float_image, open_session
from configs import Config
from configs.fusion import absorbing_steps
from quant.arith import INT8_MAX, INT8_MIN
from quant.params import ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN
from runtime.errors import ImageError
from runtime.files import write_atomically
from runtime.geometry import Placement
from runtime.image import find_inputs, read_picture
from runtime.schema import InputGeometry, Reader

# the finest first: of shifts with equal errors (a tensor that is 0 in all pictures) argmin takes that one
SHIFTS = np.arange(ACTIVATION_SHIFT_MAX, ACTIVATION_SHIFT_MIN - 1, -1)
SAMPLE = 16384  # values of a tensor looked at per picture
SHARED_SCALE = re.compile(r"(?P<task>.+)\.(?P<part>score|delta)_s\d+")


def calibrated_model(config: Config, source: Path, options: argparse.Namespace, target: Path, console: Console) -> None:
    """Writes `target`, the Q/DQ ONNX made of the export `source`. Raises CompileError or ConfigError."""
    imported = import_onnx(read_onnx(source))
    step = 2 if options.source == "fusion-bn-c1" else 1
    patterns = {number: entries for number, entries in config.fusion_bn_patterns.items() if number >= step}
    absorbing_steps(patterns, batch_norm_names(imported.module), file=config.file)
    parameters = dict(imported.parameters)
    fold = FoldBatchNorm(parameters)
    module = run_passes(imported.module, folding_passes(fold), phase_folder(options.dump, "1-folding"))
    console.print(f"folded {fold.folded} batch norms")
    shifts = activation_shifts(
        config, ImportedModel(module, parameters, imported.output_names), options.calib_images, console
    )
    passes = scale_passes(parameters, lambda var: shifts[str(var.name)])
    module = run_passes(module, passes, phase_folder(options.dump, "2-scales"))
    model = to_onnx(module, parameters, imported.output_names)
    write_atomically(target, model.SerializeToString(deterministic=True))
    console.print(f"wrote {target}")


def activation_shifts(config: Config, folded: ImportedModel, images: Path | None, console: Console) -> dict[str, int]:
    """Shift by variable name for every tensor without a scale; empty where the graph carries all of them."""
    wanted = [str(var.name) for var in tensors_without_scale(folded.module)]
    if not wanted:
        return {}
    if images is None:
        raise CompileError(
            f"{len(wanted)} tensors carry no scale (a float-trained model); give pictures to calibrate on: "
            "--calib-images DIR"
        )
    groups = scale_groups(folded)
    errors = {groups.get(name, name): np.zeros(len(SHIFTS)) for name in wanted}
    session = session_with(to_onnx(folded.module, folded.parameters, folded.output_names), wanted)
    for picture in pictures(config, images, console):
        for name, value in zip(wanted, session.run(wanted, {"image": float_image(picture)}), strict=True):
            errors[groups.get(name, name)] += squared_errors(value)
    for group, error in errors.items():
        if not np.isfinite(error).all():
            raise CompileError(f"{group}: not finite on the calibration pictures; train the step again")
    best = {group: int(SHIFTS[np.argmin(error)]) for group, error in errors.items()}
    return {name: best[groups.get(name, name)] for name in wanted}


def squared_errors(value: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared error of a tensor's int8 rounding for every shift of SHIFTS, on an even sample of its values."""
    flat = value.reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
    scaled = np.ldexp(sample, SHIFTS[:, None])
    rounded = np.ldexp(np.clip(np.rint(scaled), INT8_MIN, INT8_MAX), -SHIFTS[:, None])
    return np.square(rounded - sample).sum(axis=1)


def scale_groups(folded: ImportedModel) -> dict[str, str]:
    """Variable -> the group whose scale it shares: all score maps of a task, all its delta maps."""
    groups = {}
    for var, name in zip(Graph(folded.module).outputs, folded.output_names, strict=True):
        match = SHARED_SCALE.fullmatch(name)
        if match:
            groups[str(var.name)] = f"{match['task']}.{match['part']}"
    return groups


def session_with(model: onnx.ModelProto, names: list[str]) -> ort.InferenceSession:
    """A session that returns intermediate tensors, too."""
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    return open_session(model, ort.SessionOptions(), where="the folded model")


def pictures(config: Config, folder: Path, console: Console) -> Iterator[NDArray[np.uint8]]:
    """The folder's pictures as network inputs, uint8 (1, H, W, 3). Raises CompileError naming what cannot be read."""
    paths, _, complaints = find_inputs([folder])
    if not paths:
        raise CompileError(
            "; ".join(message for _, message in complaints)
            or f"{folder}: no pictures to calibrate on; give a folder of JPEG or PNG files"
        )
    geometry = InputGeometry.from_json(Reader(config.deployment()["input"], config.file))
    for path in track(paths, description="calibrating", console=console, transient=True):
        try:
            picture = read_picture(path)
        except ImageError as error:
            raise CompileError(f"--calib-images: {error}") from error
        yield Placement.of((picture.shape[0], picture.shape[1]), geometry).network_input(picture)
