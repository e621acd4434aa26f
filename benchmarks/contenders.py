"""The engines that `benchmarks/engines.py` compares: the same network, each as fast as its own documentation makes it.

An engine is a function without arguments that runs the network once on a picture that it was given before, with all
memory allocated.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from runtime.engine import CompiledEngine

Run = Callable[[], object]
Image = NDArray[np.float32]  # (1, 3, H, W), (p - 128) / 128


def bitroad(library: Path, picture: NDArray[np.uint8], im_hw: tuple[int, int], threads: int) -> Run:
    """The compiled model, its post-processing included."""
    engine = CompiledEngine(library, threads)
    return lambda: engine.run(picture, im_hw)


def openvino(model: Path, image: Image, threads: int, calibration: list[Image] | None) -> Run:
    """OpenVINO in float32, or with `calibration` pictures in int8 by NNCF's performance preset; latency hint."""
    import nncf
    import openvino as ov

    core = ov.Core()
    network = core.read_model(model)
    if calibration is not None:
        nncf.set_log_level(40)
        network = nncf.quantize(
            network,
            nncf.Dataset(calibration),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(calibration),
        )
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    precision = {} if calibration is not None else {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", settings | precision).create_infer_request()
    request.set_input_tensor(ov.Tensor(image, shared_memory=True))
    return request.infer


def onnxruntime_engine(model: Path, image: Image, threads: int) -> Run:
    """ONNX Runtime on an ONNX file, whatever its precision, all optimizations, input and outputs bound."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("image", image)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: list[Image]) -> None:
        self._images: Iterator[Image] = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def quantize_by_onnxruntime(model: Path, folder: Path, calibration: list[Image]) -> list[Path]:
    """Int8 forms of a float model by ONNX Runtime's own quantizer: of QDQ and QOperator, per channel."""
    made = []
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        path = folder / f"onnxruntime-{form.name.lower()}.onnx"
        quantize_static(
            model,
            path,
            _Pictures(calibration),
            quant_format=form,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        made.append(path)
    return made


def torch_engine(network: nn.Module, image: Image, *, compiled: bool) -> Run:
    """PyTorch in float32, channels last; eager, or through torch.compile."""
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensor = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
    function = torch.compile(network) if compiled else network

    def run() -> object:
        with torch.inference_mode():
            return function(tensor)

    return run
