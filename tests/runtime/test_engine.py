"""The engine of a compiled model, on the tiny one."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runtime.artifact import Manifest, file_sha256, manifest_path
from runtime.engine import CompiledEngine
from runtime.errors import ArtifactError, UsageError
from runtime.predict import Predictor


@pytest.fixture
def network_input() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 32, 72, 3), dtype=np.uint8)


def test_outputs_come_by_name_and_are_what_the_model_computes(library: Path, network_input: np.ndarray) -> None:
    engine = CompiledEngine(library)
    outputs = engine.run(network_input, (20, 60))
    assert list(outputs) == [output.name for output in engine.manifest.outputs]
    for output in engine.manifest.outputs:
        assert (outputs[output.name].shape, str(outputs[output.name].dtype)) == (output.shape, output.dtype)
    assert np.array_equal(outputs["det_thing.score_s8"], network_input[:, ::8, ::8] >> 1)
    assert np.array_equal(outputs["seg_bright.mask"], network_input[:, ::4, ::4, 0] >> 7)
    assert outputs["det_thing.boxes"][0].tolist() == [0, 0, 240, 80, 32, 0]
    assert (outputs["det_thing.boxes"][1:] == -1).all()


def test_without_im_hw_the_whole_picture_counts(library: Path, network_input: np.ndarray) -> None:
    boxes = CompiledEngine(library).run(network_input)["det_thing.boxes"]
    assert boxes[0, 2:4].tolist() == [64 * 4, 32 * 4]


def test_results_of_one_run_survive_the_next(library: Path, network_input: np.ndarray) -> None:
    engine = CompiledEngine(library)
    first = engine.run(network_input)["seg_bright.mask"]
    kept = first.copy()
    engine.run(255 - network_input)
    assert np.array_equal(first, kept)


def test_a_model_built_again_at_the_same_path_is_the_new_one(
    library: Path, rebuilt_library: Path, network_input: np.ndarray, tmp_path: Path
) -> None:
    scores = []
    for source in (library, rebuilt_library, library):
        for path in (source, manifest_path(source)):
            shutil.copy(path, tmp_path / "new")
            os.replace(tmp_path / "new", tmp_path / path.name)
        scores.append(int(CompiledEngine(tmp_path / library.name).run(network_input)["det_thing.boxes"][0, 4]))
    assert scores == [32, 48, 32]


def test_an_instrument_sees_every_call(library: Path, network_input: np.ndarray) -> None:
    engine = CompiledEngine(library)
    seen = []
    engine.vm.set_instrument(lambda function, name, before, result, *arguments: seen.append(name))
    engine.run(network_input)
    assert any("strided_slice" in str(name) for name in seen)


@pytest.mark.parametrize("wrong", [np.zeros((1, 32, 71, 3), np.uint8), np.zeros((1, 32, 72, 3), np.float32)])
def test_a_wrong_input_is_refused(library: Path, wrong: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"the network input is uint8 \(1, 32, 72, 3\)"):
        CompiledEngine(library).run(wrong)


def test_a_library_that_does_not_fit_its_manifest_is_refused(
    library: Path, tmp_path: Path, manifest: Manifest, network_input: np.ndarray
) -> None:
    copy = tmp_path / "model.so"
    shutil.copy(library, copy)
    fewer = dataclasses.replace(manifest, outputs=manifest.outputs[1:], library_sha256=file_sha256(copy))
    fewer.save(manifest_path(copy))
    with pytest.raises(ArtifactError, match="returns 5 tensors, its manifest lists 4"):
        CompiledEngine(copy).run(network_input)


def test_a_library_that_tvm_cannot_load_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(b"\x7fELF and nothing more")
    dataclasses.replace(manifest, library_sha256=file_sha256(path)).save(manifest_path(path))
    with pytest.raises(ArtifactError, match=r"model\.so: TVM cannot load it"):
        CompiledEngine(path)


def test_predictor_of_a_file(library: Path, scene: np.ndarray) -> None:
    prediction = Predictor.load(str(library), threads=1)(scene)
    (found,) = prediction.detections
    assert found.class_name == "thing"
    assert found.box == (0.0, 16.0, 128.0, 80.0)
    mask = prediction.masks["seg_bright"]
    assert (mask[16:, :64] == 0).all()
    assert (mask[16:, 64:] == 1).all()


LIGHT_START = """
import os, sys
from runtime.engine import CompiledEngine
CompiledEngine(sys.argv[1])
assert "TVM_USE_RUNTIME_LIB" not in os.environ
assert "torch" not in sys.modules
with open("/proc/self/maps") as maps:
    assert "libtvm_compiler" not in maps.read()
"""


def test_a_fresh_process_loads_the_runtime_library_alone(library: Path, repository: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TVM_USE_RUNTIME_LIB"}
    command = [sys.executable, "-c", LIGHT_START, str(library)]
    subprocess.run(command, cwd=repository, env=environment, check=True)
    command[2] += "import compile"
    late = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert "import `compile` before the first model is loaded" in late.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"machine": "pdp11"}, r"tiny\.so: built for pdp11, this machine is"),
        (
            {"mcpu": "tomorrow", "flags": ["sse2", "avx4096"]},
            r"built for tomorrow, this processor, .*, lacks avx4096; build",
        ),
    ],
)
def test_code_for_another_processor_is_refused(
    library: Path, tmp_path: Path, target: dict[str, object], message: str
) -> None:
    other = Path(shutil.copy(library, tmp_path / "tiny.so"))
    manifest = Manifest.load(manifest_path(library))
    dataclasses.replace(manifest, target=target).save(manifest_path(other))
    with pytest.raises(ArtifactError, match=message):
        CompiledEngine(other)


def test_as_many_threads_as_asked_for(library: Path) -> None:
    """In a process of its own: TVM would take half of the processors, and the number is the process's."""
    code = (
        "import sys\nfrom runtime.engine import CompiledEngine, load_tvm\n"
        "for threads in (1, 2, 1):\n"
        "    CompiledEngine(sys.argv[1], threads)\n"
        "    print(load_tvm().get_global_func('runtime.NumThreads')())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2", "1"]
