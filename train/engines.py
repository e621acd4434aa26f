"""Engines that are no compiled model: an exported ONNX model, or a checkpoint in torch, behind runtime's `Predictor`.

Where heads are quantized, boxes and masks come from the integer references of `quant` applied to q = value · 2^shift:
step 2 and the compiled model then give the same boxes and masks to the last bit. A float model has no shifts; its heads
are decoded by `train.float_decode`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from configs.schema import PREFIXES, Config
from quant.arith import channel_argmax
from quant.params import shift_of
from quant.postprocess import detection_attributes, detection_post_processing, sigmoid_table
from runtime.predict import Predictor
from runtime.schema import InputGeometry, Reader, Task, read_task
from train.checkpoint import load_checkpoint
from train.errors import EvaluationError, TrainError
from train.export import network_image, open_session
from train.float_decode import FLOAT_SCORE_SHIFT, decode_float
from train.steps import prepare

Heads = dict[str, npt.NDArray[np.float32]]
RunHeads = Callable[[npt.NDArray[np.uint8]], Heads]


class HeadsEngine:
    """Boxes and masks from head outputs (float32 NCHW by name). `shifts` by name; None for a float model."""

    def __init__(self, heads: RunHeads, shifts: Mapping[str, int] | None, config: Config) -> None:
        self._heads = heads
        self._shifts = shifts
        self._entries: list[dict[str, Any]] = config.deployment()["tasks"]
        self._input_hw = config.input_hw

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks as a `Predictor` takes them."""
        return tuple(self._task(entry) for entry in self._entries)

    def run(self, picture: npt.NDArray[np.uint8], im_hw: tuple[int, int] | None = None) -> dict[str, Any]:
        """See `runtime.engine.Engine`."""
        heads = self._heads(picture)
        size = np.array([im_hw or self._input_hw], np.int32)
        outputs: dict[str, Any] = {}
        for entry in self._entries:
            name = entry["name"]
            if entry["kind"] == "detection":
                outputs[f"{name}.boxes"] = self._boxes(entry, heads, size)
            elif self._shifts is None:
                outputs[f"{name}.mask"] = heads[f"{name}.logits"].argmax(axis=1).astype(np.uint8)
            else:
                outputs[f"{name}.mask"] = channel_argmax(self._integer(heads, f"{name}.logits"))
        return outputs

    def _boxes(self, entry: Mapping[str, Any], heads: Heads, im_hw: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        scores, deltas = ([f"{entry['name']}.{part}_s{s}" for s in entry["strides"]] for part in ("score", "delta"))
        if self._shifts is None:
            return decode_float([heads[name] for name in scores], [heads[name] for name in deltas], entry, im_hw)
        attributes = detection_attributes(
            entry, score_shift=self._shifts[scores[0]], delta_shift=self._shifts[deltas[0]]
        )
        return detection_post_processing(
            [self._integer(heads, name) for name in scores],
            [self._integer(heads, name) for name in deltas],
            attributes,
            im_hw,
        )

    def _integer(self, heads: Heads, name: str) -> npt.NDArray[np.int8]:
        """q = value · 2^shift, int8 NHWC; exact, since the value is on that grid."""
        assert self._shifts is not None
        return np.ldexp(heads[name], self._shifts[name]).astype(np.int8).transpose(0, 2, 3, 1)

    def _task(self, entry: Mapping[str, Any]) -> Task:
        values = dict(entry)
        if entry["kind"] == "detection":
            shift = FLOAT_SCORE_SHIFT
            if self._shifts is not None:
                shift = self._shifts[f"{entry['name']}.score_s{entry['strides'][0]}"]
            attributes = detection_attributes(entry, score_shift=shift, delta_shift=0)
            values["box_filter_threshold"] = attributes.box_filter_threshold
            values["score_shift"] = shift
            values["sigmoid_table"] = sigmoid_table(shift).tolist()
        return read_task(Reader(values, "config"))


def load_predictor(
    model: Path, config: Config, *, score_threshold: float = 0.0, only: Sequence[str] | None = None, ctx: str = "cpu"
) -> Predictor:
    """The predictor of a compiled model (.so), an exported one (.onnx) or a checkpoint (.params).

    EvaluationError if the file is none of them, or does not fit the config.
    """
    if not model.is_file():
        raise EvaluationError(f"{model}: no such file; give a .so, an -export-last.onnx or a checkpoint (.params)")
    if model.name.endswith("-export-last-0000.params"):
        beside = f"{PREFIXES[3]}-export-last.so" if model.name.startswith(PREFIXES[3]) else "the .onnx"
        raise EvaluationError(f"{model}: a Relax module's weights, for the compiler; give {beside} beside it")
    if not re.fullmatch(r"cpu|\d+(,\d+)*", ctx):
        raise EvaluationError(f"--ctx {ctx}: give cpu or the number of a GPU, such as 0")
    if ctx != "cpu" and model.suffix != ".onnx":
        raise EvaluationError(f"{model}: --ctx {ctx} is for an exported model (.onnx); this one runs on the CPU")
    if model.suffix == ".so":
        predictor = Predictor.load(str(model), score_threshold=score_threshold, only=only)
        _check_classes(predictor, model, config, only)
        return predictor
    if model.suffix == ".onnx":
        engine = onnx_engine(model, config, ctx)
    elif model.suffix == ".params":
        engine = checkpoint_engine(model, config)
    else:
        raise EvaluationError(f"{model}: not a model; give a .so, an -export-last.onnx or a checkpoint (.params)")
    geometry = InputGeometry.from_json(Reader(config.deployment()["input"], config.file))
    return Predictor(engine, geometry, engine.tasks, score_threshold=score_threshold, only=only)


def _check_classes(predictor: Predictor, model: Path, config: Config, only: Sequence[str] | None) -> None:
    """A compiled model carries its tasks; the metrics take them from the config. EvaluationError if they differ."""
    theirs = {task.name: [entry.name for entry in task.classes] for task in predictor.tasks}
    ours = {t.name: [entry.name for entry in t.classes] for t in config.tasks if only is None or t.name in only}
    if theirs != ours:
        raise EvaluationError(
            f"{model}: its tasks are {', '.join(theirs)}, those of {config.file} {', '.join(ours)}, or their classes "
            "differ: give the config it was built with"
        )


def onnx_engine(path: Path, config: Config, ctx: str = "cpu") -> HeadsEngine:
    """Runs an exported model in ONNX Runtime, on the CPU or a GPU of `ctx`."""
    try:
        model = onnx.load(str(path))
        session = open_session(path, gpu=None if ctx == "cpu" else int(ctx.split(",")[0]))
    except TrainError:
        raise
    except Exception as error:  # protobuf and ONNX Runtime raise classes of their own
        raise EvaluationError(f"{path}: not a valid ONNX model ({str(error)[:120]}); export it again") from None
    names = [output.name for output in session.get_outputs()]
    size = tuple(session.get_inputs()[0].shape[2:])
    if tuple(names) != config.output_names or size != config.input_hw:
        raise EvaluationError(
            f"{path}: it takes {size} and returns {', '.join(names[:2])}, …; the config {config.file} describes "
            f"{config.input_hw} and {', '.join(config.output_names[:2])}, …: give the config it was trained with"
        )

    def heads(picture: npt.NDArray[np.uint8]) -> Heads:
        return dict(zip(names, session.run(None, {"image": network_image(picture)}), strict=True))

    return HeadsEngine(heads, output_shifts(model), config)


def output_shifts(model: onnx.ModelProto) -> dict[str, int] | None:
    """Shift of every output from the scale of the DequantizeLinear it ends in; None if one is not quantized."""
    producer = {name: node for node in model.graph.node for name in node.output}
    constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    shifts = {}
    for output in model.graph.output:
        node = producer[output.name]
        if node.op_type != "DequantizeLinear":
            return None
        shifts[output.name] = shift_of(float(constants[node.input[1]]))
    return shifts


def checkpoint_engine(path: Path, config: Config) -> HeadsEngine:
    """Runs a checkpoint's network in torch, on the CPU."""
    checkpoint = load_checkpoint(path)
    prepared = prepare(config, int(checkpoint.progress["step"]), start=checkpoint, before=None)
    model = prepared.export_model()
    model.eval()

    def heads(picture: npt.NDArray[np.uint8]) -> Heads:
        with torch.no_grad():
            outputs = model(torch.from_numpy(network_image(picture)))
        return {name: output.numpy() for name, output in zip(config.output_names, outputs, strict=True)}

    return HeadsEngine(heads, prepared.output_shifts(), config)
