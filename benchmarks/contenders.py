"""The engines that `benchmarks/engines.py` compares: the same network, each as fast as its own documentation makes it.

A contender is a function (threads, copies) -> `copies` runs, each for a thread of Python of its own, whose kernels use
`threads` threads. A run takes no arguments and runs the network once on a picture that it was given before, with all
memory allocated.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from runtime.engine import CompiledEngine, set_threads

Run = Callable[[], object]
Contender = Callable[[int, int], list[Run]]
Image = NDArray[np.float32]  # (1, 3, H, W), (p - 128) / 128


def timed(run: Run, count: int) -> list[float]:
    """Seconds of `count` runs after one that is not counted: caches and threads belong to the engine then."""
    run()
    seconds = []
    for _ in range(count):
        start = perf_counter()
        run()
        seconds.append(perf_counter() - start)
    return seconds


def bitroad(library: Path, picture: NDArray[np.uint8], im_hw: tuple[int, int]) -> Contender:
    """The compiled model, its post-processing included."""

    def make(threads: int, copies: int) -> list[Run]:
        set_threads(threads)
        engine = CompiledEngine(library)
        engines = [engine, *(engine.twin() for _ in range(copies - 1))]
        return [lambda engine=engine: engine.run(picture, im_hw) for engine in engines]  # type: ignore[misc]

    return make


def openvino(model: Path, image: Image, calibration: Sequence[Image] | None) -> Contender:
    """OpenVINO in float32, or with `calibration` pictures in int8 by NNCF's performance preset.

    The model goes through `convert_model`: read as it is, the reshapes of its grouped weights stay, and the grouped
    convolutions run in bfloat16.
    """
    import nncf
    import openvino as ov

    core, network = ov.Core(), ov.convert_model(model)
    if calibration is not None:
        nncf.set_log_level(40)
        network = nncf.quantize(
            network,
            nncf.Dataset(calibration),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(calibration),
        )

    def make(threads: int, copies: int) -> list[Run]:
        settings = {
            "PERFORMANCE_HINT": "LATENCY" if copies == 1 else "THROUGHPUT",
            "INFERENCE_NUM_THREADS": threads * copies,
            "NUM_STREAMS": copies,
        }
        if calibration is None:
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        compiled, runs = core.compile_model(network, "CPU", settings), []
        for _ in range(copies):
            request = compiled.create_infer_request()
            request.set_input_tensor(ov.Tensor(image, shared_memory=True))
            runs.append(request.infer)
        return runs

    return make


def onnxruntime(models: Sequence[Path], image: Image) -> Contender:
    """ONNX Runtime on the fastest of these files, all optimizations, input and outputs bound."""

    def start(model: Path, threads: int) -> Run:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        binding.bind_cpu_input("image", image)
        for output, value in zip(session.get_outputs(), session.run(None, {"image": image}), strict=True):
            binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(value))
        return lambda: session.run_with_iobinding(binding)

    def make(threads: int, copies: int) -> list[Run]:
        best = min(models, key=lambda model: min(timed(start(model, threads), 5))) if len(models) > 1 else models[0]
        return [start(best, threads) for _ in range(copies)]

    return make


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Sequence[Image]) -> None:
        self._images: Iterator[Image] = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def quantize_by_onnxruntime(model: Path, folder: Path, calibration: Sequence[Image]) -> list[Path]:
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


def pytorch(network: nn.Module, image: Image, *, compiled: bool) -> Contender:
    """PyTorch in float32, channels last; the traced operators run eagerly, or through torch.compile."""
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensor = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)

    def make(threads: int, copies: int) -> list[Run]:
        torch.set_num_threads(threads)
        with torch.no_grad():
            traced = make_fx(network)(tensor)
        function = torch.compile(traced, options={"freezing": True}) if compiled else traced

        def run() -> object:
            with torch.no_grad():
                return function(tensor)

        return [run] * copies

    return make
