"""The manifest: what is saved is loaded, and whatever does not fit is refused with file, key and cure."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.artifact import Manifest, load_artifact, manifest_path
from runtime.errors import ArtifactError


@pytest.fixture
def copy(library: Path, tmp_path: Path) -> Path:
    """A .so with its manifest that a test may spoil."""
    target = tmp_path / "model.so"
    shutil.copy(library, target)
    shutil.copy(manifest_path(library), manifest_path(target))
    return target


def test_round_trip_through_json(manifest: Manifest) -> None:
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_round_trip_through_a_file(manifest: Manifest, tmp_path: Path) -> None:
    manifest.save(tmp_path / "m.json")
    assert Manifest.load(tmp_path / "m.json") == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_a_good_artifact_loads(copy: Path) -> None:
    assert [task.name for task in load_artifact(copy).tasks] == ["det_thing", "seg_bright"]


def spoil_missing_library(path: Path) -> None:
    path.unlink()


def spoil_missing_manifest(path: Path) -> None:
    manifest_path(path).unlink()


def spoil_text_for_library(path: Path) -> None:
    path.write_text("not a model")


def spoil_empty_library(path: Path) -> None:
    path.write_bytes(b"")


def spoil_one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def spoil_half_a_manifest(path: Path) -> None:
    text = manifest_path(path).read_text()
    manifest_path(path).write_text(text[: len(text) // 2])


def spoil_binary_manifest(path: Path) -> None:
    manifest_path(path).write_bytes(b"\xff\xfe\x00")


def spoil_version(path: Path) -> None:
    data = json.loads(manifest_path(path).read_text())
    data["schema_version"] = 99
    manifest_path(path).write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing_library, r"model\.so: no such file.*compile\.build"),
        (spoil_missing_manifest, r"model\.json: no such file.*copy both"),
        (spoil_text_for_library, r"model\.so: not a compiled model"),
        (spoil_empty_library, r"model\.so: not a compiled model"),
        (spoil_one_byte, r"sha256 differs.*copy both again"),
        (spoil_half_a_manifest, r"model\.json: not JSON"),
        (spoil_binary_manifest, r"model\.json: cannot be read"),
        (spoil_version, r"model\.json: schema_version is 99, this runtime reads 3"),
    ],
)
def test_a_spoiled_artifact_is_refused(copy: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(copy)
    with pytest.raises(ArtifactError, match=message):
        load_artifact(copy)


def test_a_folder_and_another_suffix_are_no_model(copy: Path) -> None:
    with pytest.raises(ArtifactError, match="not a file"):
        load_artifact(copy.parent)
    with pytest.raises(ArtifactError, match="not a compiled model"):
        load_artifact(manifest_path(copy))


def _set(data: Any, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for key in parents:
        data = data[int(key) if isinstance(data, list) else key]
    if value is None and isinstance(data, dict) and last != "shift":
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("uses_im_hw", None, "uses_im_hw is missing"),
        ("uses_im_hw", 1, "uses_im_hw must be true or false"),
        ("uses_im_hw", False, "uses_im_hw must be true exactly when"),
        ("surprise", 1, "surprise is not a key"),
        ("input/height", "32", "input: height must be an integer"),
        ("input/height", True, "input: height must be an integer"),
        ("input/height", 31, "input: height, width must be pyramid_hw less cut_top"),
        ("input/variant", "stretch", "input: variant must be one of resize, crop"),
        ("input/variant", "crop", "input: variant is crop"),
        ("input/source_hw", [80], "input: source_hw must have 2 entries"),
        ("tasks", [], "tasks is empty"),
        ("tasks/0/kind", "tracking", r"tasks\[0\]: kind must be one of"),
        ("tasks/0/sigmoid_table", [0.5] * 255, r"tasks\[0\]: sigmoid_table must be a list of 256"),
        ("tasks/0/anchors", [[1, 2]], r"tasks\[0\]: anchors must hold pairs"),
        ("tasks/0/classes/0/color", [0, 0, 256], r"classes\[0\]: color must be three integers in 0..255"),
        ("tasks/1/classes", [], r"tasks\[1\]: classes must not be empty"),
        ("tasks/1/name", "det_thing", "tasks: 'det_thing' appears twice"),
        ("outputs/0/dtype", "float32", r"outputs\[0\]: dtype must be one of int8"),
        ("outputs/0/shift", None, r"outputs\[0\]: shift of 'det_thing.score_s8' must be an integer for a head"),
        ("outputs/0/task", "nobody", r"outputs\[0\].task: no task is called 'nobody'"),
        ("outputs/2/role", "packed", "task 'det_thing' has no output of role 'boxes'"),
    ],
)
def test_a_wrong_key_is_named(manifest: Manifest, path: str, value: Any, message: str) -> None:
    data = json.loads(json.dumps(manifest.to_json()))
    _set(data, path, value)
    with pytest.raises(ArtifactError, match=rf"^here\.json.*{message}.*compile\.build"):
        Manifest.from_json(data, "here.json")


@pytest.mark.parametrize("data", [[], None, "text", 1])
def test_json_that_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(ArtifactError, match="must be a JSON object"):
        Manifest.from_json(data)
