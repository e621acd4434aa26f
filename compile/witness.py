"""Step 2 as ONNX Runtime computes it: an implementation that nobody here wrote, run on the exported Q/DQ model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from compile.errors import CompileError
from compile.files import first_line
from compile.importer import read_onnx
from quant.arith import INPUT_SHIFT, channel_argmax, quantize_pixels
from quant.postprocess import detection_attributes, detection_post_processing, pack_hardware

LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
NOTE = "ONNX Runtime, float kernels (session.disable_quant_qdq: its fused int8 kernels may saturate without VNNI)"


class Witness:
    """ONNX Runtime on step 2's model.

    `tensors` are intermediates to return beside the outputs, by their names in the ONNX.
    """

    def __init__(self, path: Path, *, level: str = "all", tensors: Sequence[str] = (), threads: int = 1) -> None:
        model = read_onnx(path)
        (image,) = (entry for entry in model.graph.input if entry.name == "image")
        self.input_shape = tuple(size.dim_value for size in image.type.tensor_type.shape.dim)
        self.output_names = [output.name for output in model.graph.output]
        self.names = list(dict.fromkeys([*self.output_names, *tensors]))
        present = {name for node in model.graph.node for name in node.output}
        for name in self.names[len(self.output_names) :]:
            if name in present:
                model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        options = float_kernels()
        options.graph_optimization_level = LEVELS[level]
        options.intra_op_num_threads = threads
        self._session = open_session(model, options, where=str(path))

    def run(self, picture: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Outputs and tensors by name for a network input uint8 (1, H, W, 3).

        The ONNX has them NCHW; here they are turned to NHWC.
        """
        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {"image": float_image(picture)})
        return {name: value.transpose(0, 2, 3, 1) for name, value in zip(names, values, strict=True)}


def float_image(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A network input uint8 (1, H, W, 3) as the ONNX takes it: float32 (1, 3, H, W) on the input's grid."""
    image = np.ldexp(quantize_pixels(picture).astype(np.float32), -INPUT_SHIFT)
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def float_kernels() -> ort.SessionOptions:
    """Options of a session that runs a Q/DQ graph op by op in float: see NOTE."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def open_session(model: onnx.ModelProto, options: ort.SessionOptions, *, where: str) -> ort.InferenceSession:
    """ONNX Runtime on the CPU. Raises CompileError naming the model `where` it refuses it."""
    options.log_severity_level = 4  # what is fatal is raised
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of its own
        raise CompileError(f"{where}: ONNX Runtime refuses the model ({first_line(error)}); export it again") from error


def post_processing(
    heads: Mapping[str, NDArray[np.int8]],
    shifts: Mapping[str, int],
    tasks: Sequence[Mapping[str, Any]],
    im_hw: tuple[int, int],
) -> dict[str, NDArray[Any]]:
    """Step 2's boxes and masks by the compiled model's output names: the numpy reference on its int8 heads (NHWC)."""
    size = np.array([im_hw], np.int32)
    results: dict[str, NDArray[Any]] = {}
    for task in tasks:
        name = task["name"]
        if task["kind"] == "segmentation":
            results[f"{name}.mask"] = channel_argmax(heads[f"{name}.logits"])
            continue
        scores, deltas = ([f"{name}.{part}_s{stride}" for stride in task["strides"]] for part in ("score", "delta"))
        attributes = detection_attributes(task, score_shift=shifts[scores[0]], delta_shift=shifts[deltas[0]])
        boxes = detection_post_processing([heads[s] for s in scores], [heads[d] for d in deltas], attributes, size)
        results[f"{name}.boxes"], results[f"{name}.packed"] = boxes, pack_hardware(boxes)
    return results
