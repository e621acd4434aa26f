"""The export model as ONNX: backbone, neck and heads of all tasks, no loss, no post-processing.

Quantization appears as QuantizeLinear and DequantizeLinear, parameters keep their dotted names. Once no batch norm is
left, torch and ONNX Runtime must return the same bits: this is checked at every export.
"""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from runtime.files import write_atomically
from train.errors import ExportError

OPSET = 17
NETWORK_OPS = ("Conv", "BatchNormalization", "Relu", "Add", "Resize", "Slice", "Concat", "AveragePool")
ALLOWED_OPS = frozenset((*NETWORK_OPS, "QuantizeLinear", "DequantizeLinear", "Constant"))
PLUMBING = frozenset(("Cast", "Unsqueeze", "Concat", "Identity", "Constant"))  # folded where all inputs are constant
WITNESS_PICTURES = 3


def export_onnx(model: torch.nn.Module, hw: tuple[int, int], output_names: Sequence[str], path: Path) -> bool:
    """Writes `model` (image float32 (1, 3, H, W) to a tuple of float32 NCHW heads) to `path`.

    Returns whether equality of torch and ONNX Runtime was checked, which is where quantized and free of batch norms.
    ExportError if they differ, or if the graph holds an operator that step 3 has no integer form for.
    """
    model.eval()
    image = torch.zeros(1, 3, *hw)
    buffer = BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the older exporter, which alone keeps names and Q/DQ pairs
        torch.onnx.export(
            model,
            (image,),
            buffer,
            input_names=["image"],
            output_names=list(output_names),
            opset_version=OPSET,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    exported = fold_plumbing(onnx.load_from_string(buffer.getvalue()))
    foreign = sorted({node.op_type for node in exported.graph.node} - ALLOWED_OPS)
    if foreign:
        raise ExportError(f"{path}: the export holds {', '.join(foreign)}; the network may only use what step 3 knows")
    onnx.checker.check_model(exported, full_check=True)
    content = exported.SerializeToString(deterministic=True)
    exact = is_exact(exported)
    if exact:
        check_equality(model, content, hw, path)
    write_atomically(path, content)
    return exact


def fold_plumbing(model: ModelProto) -> ModelProto:
    """Casts, shapes and copies of constants become Constant nodes; a copy of a parameter becomes a parameter."""
    graph = model.graph
    parameters = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    constants: dict[str, npt.NDArray[np.generic]] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        known = constants.keys() | (parameters.keys() if node.op_type == "Identity" else set())
        if node.op_type not in PLUMBING or not all(name in known for name in node.input):
            nodes.append(node)
            continue
        (name,) = node.output
        if node.op_type == "Identity" and node.input[0] in parameters:
            # the exporter merges parameters of equal value (a fresh batch norm's) and copies them back
            parameters[name] = parameters[node.input[0]]
            graph.initializer.append(numpy_helper.from_array(parameters[name], name))
        else:
            inputs = {entry: constants[entry] for entry in node.input}
            (constants[name],) = ReferenceEvaluator(node).run(None, inputs)
    used = {name for node in nodes for name in node.input}
    literals = [
        onnx.helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(np.asarray(value)))
        for name, value in constants.items()
        if name in used
    ]
    del graph.node[:]
    graph.node.extend([*literals, *nodes])
    kept = [entry for entry in graph.initializer if entry.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def is_exact(model: ModelProto) -> bool:
    """Whether the arithmetic of the graph is exact: every output is quantized, no batch norm is left."""
    producer = {name: node.op_type for node in model.graph.node for name in node.output}
    quantized = all(producer[output.name] == "DequantizeLinear" for output in model.graph.output)
    return quantized and "BatchNormalization" not in producer.values()


def check_equality(model: torch.nn.Module, content: bytes, hw: tuple[int, int], path: Path) -> None:
    """Runs both on random pictures and on one of the extremes; ExportError names the first output that differs."""
    session = open_session(content)
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (1, *hw, 3)) for _ in range(WITNESS_PICTURES - 1)]
    pictures.append(rng.integers(0, 2, (1, *hw, 3)) * 255)
    for picture in pictures:
        image = network_image(picture.astype(np.uint8))
        theirs = session.run(None, {"image": image})
        with torch.no_grad():
            ours = [output.numpy() for output in model(torch.from_numpy(image))]
        for name, own, other in zip(names, ours, theirs, strict=True):
            if not np.array_equal(own, other):
                raise ExportError(
                    f"{path}: output {name} differs between torch and ONNX Runtime in {int((own != other).sum())} of "
                    f"{own.size} elements; a sum left the exact range: train with the shifts chosen under the bound"
                )


def open_session(model: bytes | Path, *, gpu: int | None = None) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU or on GPU number `gpu`.

    It computes Q/DQ graphs in float, not in its fused int8 kernels, which may saturate where VNNI is missing.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    providers: list[Any] = ["CPUExecutionProvider"]
    if gpu is not None:
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ExportError("this ONNX Runtime has no GPU support; use --ctx cpu or install onnxruntime-gpu")
        # TF32 would round the exact sums
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": gpu, "use_tf32": 0}))
    return onnxruntime.InferenceSession(source, options, providers=providers)


def network_image(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Network input uint8 (N, H, W, 3) as `image`, float32 (N, 3, H, W) = (p - 128) / 128, exactly."""
    image = (picture.astype(np.float32) - 128.0) / 128.0
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))
