"""`runtime.infer` from the outside: everything good is processed, everything bad is named, the exit code tells."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.infer import main
from runtime.video import states_count

Write = Callable[..., Path]
Run = Callable[..., int]


@pytest.fixture
def run(library: Path, tmp_path: Path) -> Run:
    """Runs the command in this process, results to tmp_path/out; returns the exit code."""

    def infer(*inputs: Path, options: tuple[str, ...] = ()) -> int:
        images = [str(path) for path in inputs]
        return main(["--model", str(library), "--out", str(tmp_path / "out"), *options, "--images", *images])

    return infer


def results(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_a_folder_of_pictures(run: Run, write: Write, scene: np.ndarray, tmp_path: Path, capsys) -> None:
    write("in/a.png", scene)
    write("in/b.jpg", np.repeat(np.repeat(scene, 3, 0), 3, 1))
    write("in/grey.png", scene[..., 0])
    write("in/rgba.png", np.dstack([scene, scene[..., 0]]))
    assert run(tmp_path / "in") == 0
    data = results(tmp_path)
    assert [Path(entry["file"]).name for entry in data["images"]] == ["a.png", "b.jpg", "grey.png", "rgba.png"]
    assert [(entry["height"], entry["width"]) for entry in data["images"][:2]] == [(80, 128), (240, 384)]
    assert data["images"][1]["detections"][0]["box"] == [0, 48, 384, 240]
    for entry in data["images"]:
        mask = cv2.imread(str(tmp_path / "out" / entry["masks"]["seg_bright"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (entry["height"], entry["width"])
        stem = Path(entry["file"]).stem
        assert cv2.imread(str(tmp_path / "out" / "overlays" / f"{stem}.jpg")).shape[1] == entry["width"]
    text = capsys.readouterr().out
    assert "4 pictures, 4 detections" in text
    for part in ("decode", "pre", "inference", "post", "draw", "write"):
        assert part in text


def test_bad_inputs_are_named_and_the_good_ones_processed(
    run: Run, write: Write, scene: np.ndarray, tmp_path: Path, capsys
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 128, 3), dtype=np.uint8)
    cut, grey = write("cut.jpg", noise), write("grey-fill.jpg", noise)
    cut.write_bytes(cut.read_bytes()[:3000])
    grey.write_bytes(grey.read_bytes()[:3000] + b"\xff\xd9")
    (text := tmp_path / "text.jpg").write_text("this is no picture")
    (empty := tmp_path / "empty.png").write_bytes(b"")
    (folder := tmp_path / "nothing").mkdir()
    (fake := tmp_path / "fake.mp4").write_text("this is no video")
    tiny, missing = write("tiny.png", scene[:1, :1]), tmp_path / "missing.jpg"
    bad = [cut, grey, text, empty, folder, fake, tiny, missing]
    assert run(bad[0], write("good.png", scene), *bad[1:], write("last.png", scene)) == 1
    data = results(tmp_path)
    assert [Path(entry["file"]).name for entry in data["images"]] == ["good.png", "last.png"]
    assert sorted(entry["file"] for entry in data["failed"]) == sorted(map(str, bad))
    shown = capsys.readouterr()
    assert "8 inputs could not be processed" in shown.out
    for path in bad:
        assert str(path) in shown.out
    assert "Traceback" not in shown.out + shown.err


def test_a_name_that_is_no_text(run: Run, write: Write, scene: np.ndarray, tmp_path: Path) -> None:
    """From an old camera or archive: bytes that are no UTF-8."""
    folder = write("in/a.png", scene).parent
    (folder / "a.png").rename(folder / os.fsdecode(b"stra\xdfe.png"))
    (folder / os.fsdecode(b"b\xff.png")).write_bytes(b"no picture")
    assert run(folder) == 1
    (entry,) = results(tmp_path)["images"]
    assert os.fsencode(Path(entry["file"]).name) == b"stra\xdfe.png"
    assert len(results(tmp_path)["failed"]) == 1


def test_a_folder_that_cannot_be_read(
    run: Run, write: Write, scene: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, locked = write("a.png", scene), write("locked: folder/b.png", scene).parent
    original = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert run(locked, picture) == 1
    assert len(results(tmp_path)["images"]) == 1
    assert results(tmp_path)["failed"] == [
        {"file": str(locked), "error": f"{locked}: cannot be read (Permission denied)"}
    ]


def test_an_empty_folder_alone(run: Run, tmp_path: Path, capsys) -> None:
    (tmp_path / "nothing").mkdir()
    assert run(tmp_path / "nothing") == 1
    assert "no pictures in this folder" in capsys.readouterr().out


def test_options(run: Run, write: Write, scene: np.ndarray, tmp_path: Path, capsys) -> None:
    options = ("--score-threshold", "0.9", "--no-overlay", "--json", "--tasks", "det_thing", "--threads", "1")
    assert run(write("a.png", scene), options=options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["detections"], report["failed"]) == (1, 0, [])
    assert report["milliseconds"]["inference"]["count"] == 1
    assert results(tmp_path)["images"][0]["masks"] == {}
    assert not (tmp_path / "out" / "overlays").exists()


def test_as_many_pictures_at_a_time_as_threads(run: Run, write: Write, scene: np.ndarray, tmp_path: Path) -> None:
    """The results are those of one thread, in the same order, failures in their places."""
    rng = np.random.default_rng(0)
    for number in range(12):
        write(f"in/{number:02}.png", rng.integers(0, 256, scene.shape, dtype=np.uint8))
    (tmp_path / "in" / "05.png").write_bytes(b"no picture")
    found = {}
    for threads in ("1", "3"):
        assert run(tmp_path / "in", options=("--threads", threads)) == 1
        masks = sorted((tmp_path / "out" / "masks").rglob("*.png"))
        found[threads] = results(tmp_path), [mask.read_bytes() for mask in masks]
    assert found["1"] == found["3"]
    assert len(found["1"][0]["images"]) == 11


def test_results_only(run: Run, write: Write, scene: np.ndarray, tmp_path: Path, capsys) -> None:
    write("in/a.png", scene)
    write("in/b.png", scene)
    assert run(tmp_path / "in", options=("--no-overlay", "--no-masks", "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["milliseconds"]) == {"decode", "pre", "inference", "post"}
    assert report["throughput"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "results.json",
        "coco_results.json",
        "coco_images.json",
    }
    assert all(entry["masks"] == {} and entry["detections"] for entry in results(tmp_path)["images"])


def test_same_names_do_not_overwrite_each_other(run: Run, write: Write, scene: np.ndarray, tmp_path: Path) -> None:
    assert run(write("a/x.png", scene), write("b/x.png", 255 - scene)) == 0
    first, second = (entry["masks"]["seg_bright"] for entry in results(tmp_path)["images"])
    assert first != second
    assert (tmp_path / "out" / first).read_bytes() != (tmp_path / "out" / second).read_bytes()


@pytest.mark.parametrize(
    ("model", "message"), [("missing.so", "no such file"), ("text.so", "not a compiled model"), (".", "not a file")]
)
def test_a_bad_model(model: str, message: str, write: Write, scene: np.ndarray, tmp_path: Path, capsys) -> None:
    (tmp_path / "text.so").write_text("this is no model")
    picture = str(write("a.png", scene))
    assert main(["--model", str(tmp_path / model), "--images", picture, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_an_unknown_task(run: Run, write: Write, scene: np.ndarray, capsys) -> None:
    assert run(write("a.png", scene), options=("--tasks", "det_thing,det_nothing")) == 2
    assert "no task 'det_nothing'; it has: det_thing, seg_bright" in capsys.readouterr().err


def test_no_threads(run: Run, write: Write, scene: np.ndarray, capsys) -> None:
    assert run(write("a.png", scene), options=("--threads", "0")) == 2
    assert "number of threads must be at least 1" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file(run: Run, write: Write, scene: np.ndarray, tmp_path: Path, capsys) -> None:
    (tmp_path / "out").write_text("in the way")
    assert run(write("a.png", scene)) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "much"])
def test_a_threshold_that_is_no_score(run: Run, write: Write, scene: np.ndarray, value: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(write("a.png", scene), options=(f"--score-threshold={value}",))
    assert stopped.value.code == 2
    assert "--score-threshold" in capsys.readouterr().err


def write_video(path: Path, frames: int) -> None:
    code = cv2.VideoWriter.fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), code, 10.0, (128, 80))
    for index in range(frames):
        writer.write(np.full((80, 128, 3), index % 12 * 20, np.uint8))
    writer.release()


def test_a_video_goes_in_and_a_video_comes_out(run: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "drive.mp4", 7)
    assert run(tmp_path / "drive.mp4") == 0
    images = results(tmp_path)["images"]
    assert [entry["frame"] for entry in images] == list(range(7))
    assert images[0]["detections"][0]["box"] == [0, 16, 128, 80]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlays" / "drive.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    assert [path.name for path in (tmp_path / "out" / "overlays").iterdir()] == ["drive.mp4"]


def test_a_video_that_is_cut_short(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What can be read is processed; that there should be more is said."""
    write_video(tmp_path / "cut.avi", 20)
    data = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "none.mp4").write_bytes(data[:100])
    capture = cv2.VideoCapture(str(tmp_path / "cut.avi"))
    readable = sum(1 for _ in iter(lambda: capture.read()[0], False))
    assert 0 < readable < 20
    assert run(tmp_path / "cut.avi", tmp_path / "none.mp4") == 1
    assert len(results(tmp_path)["images"]) == readable, "every frame that can be read"
    shown = capfd.readouterr()
    assert "of 20 frames; it is cut short or damaged" in shown.out
    assert "none.mp4: not a video" in shown.out
    assert "moov" not in shown.err


@pytest.mark.parametrize(
    ("name", "start", "stated"),
    [
        ("a.mp4", b"\0\0\0\x20ftypisom", True),
        ("a.avi", b"RIFF\0\0\0\0AVI ", True),
        ("a.mkv", b"\x1a\x45\xdf\xa3" + bytes(8), False),
        ("a.ts", b"G", False),
    ],
)
def test_whether_a_video_states_its_number_of_frames(tmp_path: Path, name: str, start: bytes, stated: bool) -> None:
    (tmp_path / name).write_bytes(start)
    assert states_count(tmp_path / name) == stated


def test_a_picture_with_a_long_name(run: Run, write: Write, scene: np.ndarray, tmp_path: Path) -> None:
    """As long as the longest of its outputs may be called."""
    write(f"{'x' * 250}.png", scene)
    assert run(tmp_path / f"{'x' * 250}.png") == 0
    assert [path.stem for path in (tmp_path / "out/overlays").iterdir()] == ["x" * 250]


def test_long_names_of_one_stem_and_of_a_video(run: Run, write: Write, scene: np.ndarray, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(f"{folder}/{'x' * 250}.png", scene)
    write_video(tmp_path / f"{'v' * 250}.mp4", 2)
    assert run(tmp_path / "a", tmp_path / "b", tmp_path / f"{'v' * 250}.mp4") == 0
    overlays = sorted(path.name for path in (tmp_path / "out/overlays").iterdir())
    assert overlays == [f"{'v' * 250}.mp4", f"{'x' * 248}-2.jpg", f"{'x' * 250}.jpg"]


def test_ctrl_c_loses_nothing_that_was_done(library: Path, tmp_path: Path, repository: Path) -> None:
    """A video of many frames is interrupted: results and the video so far are whole."""
    write_video(tmp_path / "long.mp4", 3000)
    command = [sys.executable, "-m", "runtime.infer", "--model", str(library), "--images", str(tmp_path / "long.mp4")]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a suite that a script runs in the background hands on an ignored SIGINT; a user's terminal does not
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = tmp_path / "out" / "overlays" / ".long.part.mp4"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 1000) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in out
    assert "Traceback" not in err
    count = len(results(tmp_path)["images"])
    assert 0 < count < 3000
    capture = cv2.VideoCapture(str(tmp_path / "out" / "overlays" / "long.mp4"))
    assert abs(capture.get(cv2.CAP_PROP_FRAME_COUNT) - count) <= 1


ISOLATED = """
import sys
ALLOWED = {"runtime", "numpy", "cv2", "tvm", "tvm_ffi", "ml_dtypes", "typing_extensions", *sys.stdlib_module_names}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if path is None and name.split(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from runtime.infer import main
sys.exit(main())
"""


def test_it_runs_with_nothing_but_numpy_opencv_and_tvm(
    library: Path, write: Write, scene: np.ndarray, tmp_path: Path, repository: Path
) -> None:
    """ml_dtypes and typing_extensions are what the TVM packages themselves require."""
    command = [sys.executable, "-c", ISOLATED, "--model", str(library), "--images", str(write("a.png", scene))]
    subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=repository, check=True)
    assert len(results(tmp_path)["images"]) == 1


def test_real_photos(run: Run, real_data: Path, tmp_path: Path) -> None:
    photos = sorted((real_data / "road_photos").glob("*.jpg"))
    assert photos
    assert run(real_data / "road_photos", options=("--no-overlay",)) == 0
    assert len(results(tmp_path)["images"]) == len(photos)
