"""Models that others have trained and quantized, compiled: the reference arithmetic bit for bit; ONNX Runtime, too,
where the scales are powers of two, and its classes where they are not.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from compile.build import main as build
from compile.foreign import reference
from compile.foreign.model import read_foreign
from compile.foreign.operators import read_network
from runtime.errors import ArtifactError, UsageError
from runtime.predict import Predictor
from runtime.tensor_model import TensorModel
from tests.parity.foreign_models import HW, NETWORKS, pictures, quantized, quantized_with_pad, to_powers_of_two

INPUTS = 400
SAME_CLASS = 0.995


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


def compiled(path: Path) -> TensorModel:
    assert build(["--onnx", str(path), "--out", str(path.parent / "out")]) == 0
    return TensorModel(path.parent / "out" / f"{path.stem}.so", threads=1)


def onnx_runtime(path: Path) -> ort.InferenceSession:
    """In float: its fused int8 kernels saturate where the processor has no VNNI."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", NETWORKS)
def test_powers_of_two_are_onnx_runtimes_bits(name: str, folder: Path) -> None:
    path = to_powers_of_two(quantized(name, folder), folder / f"{name}-powers.onnx")
    model, session = compiled(path), onnx_runtime(path)
    values = set()
    for picture in pictures(20, seed=2):
        found, expected = model.run(picture)["y"], session.run(None, {"x": picture})[0]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
        values.update(np.unique(expected).tolist())
    assert len(values) > 15


@pytest.mark.parametrize("value", [0.0, 0.7, -1.2])
def test_a_pad_that_is_told_its_value(value: float, folder: Path) -> None:
    """ONNX Runtime's quantizer quantizes the value, too, on a scale of its own."""
    source = quantized_with_pad(value, folder)
    producers = {name: node.op_type for node in onnx.load(str(source)).graph.node for name in node.output}
    (pad,) = (node for node in onnx.load(str(source)).graph.node if node.op_type == "Pad")
    assert producers[pad.input[2]] == "DequantizeLinear"
    compiled(source)  # any scales: equal to the reference, or it is no model
    path = to_powers_of_two(source, folder / f"pad-{value}-powers.onnx")
    model, session = compiled(path), onnx_runtime(path)
    for picture in pictures(5, seed=2):
        assert np.array_equal(model.run(picture)["y"], session.run(None, {"x": picture})[0])


@pytest.mark.parametrize("per_channel", [True, False], ids=["a scale for each channel", "one scale"])
@pytest.mark.parametrize("name", NETWORKS)
def test_other_scales_are_the_reference_and_the_same_classes(name: str, per_channel: bool, folder: Path) -> None:
    path = quantized(name, folder, per_channel=per_channel)
    model, session, network = compiled(path), onnx_runtime(path), read_network(read_foreign(path))
    same, places = 0, 0
    for number, picture in enumerate(pictures(INPUTS if name != "unet" else 40, seed=3)):
        found, theirs = model.run(picture)["y"], session.run(None, {"x": picture})[0]
        if number < 20:
            assert np.array_equal(found, reference.run(network, picture)["y"])
        same += int((found.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        places += found.size // found.shape[1]
    assert same >= SAME_CLASS * places


def test_what_a_user_gets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = quantized("unet", folder)
    model = compiled(path)
    text = capsys.readouterr().out
    assert "equal to the reference arithmetic on 16 random inputs" in text
    assert "another largest channel" in text
    manifest = model.manifest
    assert (manifest.input.name, manifest.input.shape) == ("x", (1, 3, *HW))
    assert [(entry.name, entry.shape, entry.dtype) for entry in manifest.outputs] == [("y", (1, 5, *HW), "float32")]
    assert {"Convolution", "Bilinear2x", "Nearest2x", "Concat", "MaxPool"} <= {
        entry["kind"] for entry in manifest.layers
    }
    with pytest.raises(UsageError, match=r"the input x is float32 \(1, 3, 32, 40\), not float64"):
        model.run(np.zeros((1, 3, *HW)))
    with pytest.raises(ArtifactError, match=r"a foreign model; load it with runtime\.tensor_model"):
        Predictor.load(path.parent / "out/unet.so")
