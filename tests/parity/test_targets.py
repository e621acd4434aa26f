"""What a target decides: the kernels that are built, and which of ONNX Runtime's kernels bear witness."""

from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from compile.targets import FAMILIES, find_target
from runtime.processor import missing_flags
from tests.parity.harness import COMPILED, NUMPY
from tests.parity.processor import FUSED_WITNESS, NO_FUSED_WITNESS
from tests.parity.trial import Trial, differences

OUTSIDE_THE_MATRIX = ("x86-64", "convolutions")  # the kernels that every processor of the family runs
CASES = [
    pytest.param(target, trial, marks=() if (target, trial) == OUTSIDE_THE_MATRIX else pytest.mark.matrix)
    for target in FAMILIES
    for trial in ("convolutions", "pointwise", "blocks", "heads")
]


@pytest.mark.parametrize(("target", "trial"), CASES)
def test_kernels_of_every_target_agree(target: str, trial: str, request: pytest.FixtureRequest) -> None:
    missing = missing_flags(find_target(target).flags)
    if missing:
        pytest.skip(f"this processor cannot run {target}: it has no {', '.join(missing)}")
    found: Trial = request.getfixturevalue(trial)
    for picture, results in zip(found.pictures, found.results, strict=True):
        compiled = found.parties.compiled(picture, found.im_hw, target)
        assert differences({NUMPY: results[NUMPY], COMPILED: compiled}) == []


@pytest.mark.skipif(not FUSED_WITNESS, reason=NO_FUSED_WITNESS)
def test_the_second_witness_computes_in_int8(convolutions: Trial, tmp_path: Path) -> None:
    """Its agreement would mean nothing if it ran the float kernels again."""
    kinds = {}
    for name, setting in (("float", "1"), ("int8", "0")):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / name)
        options.add_session_config_entry("session.disable_quant_qdq", setting)
        ort.InferenceSession(str(convolutions.parties.path), options, providers=["CPUExecutionProvider"])
        kinds[name] = {node.op_type for node in onnx.load(tmp_path / name).graph.node}
    assert "QLinearConv" in kinds["int8"] - kinds["float"]
