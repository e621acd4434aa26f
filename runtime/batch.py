"""Many pictures and videos through one predictor: what `runtime.infer` and `train.predict` share.

A file that cannot be processed is noted and the rest goes on; an interruption keeps all that was done.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.draw import draw_overlay
from runtime.errors import ImageError, VideoError
from runtime.files import distinct_stems
from runtime.image import Inputs, Picture, read_picture
from runtime.interruption import stop_flag
from runtime.predict import PicturePredictor, Prediction, by_any
from runtime.results import ResultsWriter, write_mask, write_picture
from runtime.stream import in_order
from runtime.timing import Progress, Stopwatch, statistics_table
from runtime.video import VideoReader, VideoWriter

Stopped = Callable[[], bool]
OVERLAYS, MASKS = "overlays", "masks"
SHOWN_SCORE = 0.3


@dataclass(frozen=True)
class Report:
    """What a batch came to: pictures and frames processed, what failed, and the times of the parts of the work."""

    count: int
    detections: int
    failed: tuple[dict[str, str], ...]
    stopwatch: Stopwatch
    seconds: float
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if something failed, 130 if the user interrupted."""
        return 130 if self.interrupted else int(bool(self.failed))

    @property
    def throughput(self) -> float:
        """Pictures a second, from the first to the last."""
        return self.count / self.seconds

    def to_json(self) -> dict[str, Any]:
        """JSON-able; milliseconds per part."""
        return {
            "images": self.count,
            "detections": self.detections,
            "failed": list(self.failed),
            "interrupted": self.interrupted,
            "throughput": round(self.throughput, 2),
            "milliseconds": {part: row.to_json() for part, row in self.stopwatch.statistics().items()},
        }

    def text(self) -> str:
        """For people: the times, and at the end what failed."""
        lines = []
        if self.count:
            lines += [statistics_table(self.stopwatch.statistics()), ""]
        found = f"{_plural(self.count, 'picture')}, {_plural(self.detections, 'detection')}"
        lines.append(f"{found}, {self.throughput:.1f} pictures a second" if self.count else found)
        if self.interrupted:
            lines.append("interrupted: the results so far are complete, the rest was not looked at")
        if self.failed:
            lines.append(f"{_plural(len(self.failed), 'input')} could not be processed:")
            lines += [f"  {failure['error']}" for failure in self.failed]
        return "\n".join(lines)


@dataclass(frozen=True)
class Work:
    """What became of one picture: its prediction and the files of its masks, and how long the parts took."""

    prediction: Prediction
    masks: dict[str, str]
    seconds: dict[str, float]
    overlay: Picture | None = None  # of a video's frame


class Batch:
    """One run over many inputs. `model` names the model in results.json, `out` is the folder that everything goes to:

    results.json and its two COCO companions, `masks/<task>/<name>.png` (class indices at the picture's own size, 255
    where the network was not shown the picture), `overlays/<name>.jpg`, and for a video `overlays/<name>.mp4`.

    As many pictures are worked on at a time as there are `predictors`, which are equal but for their engines.
    """

    def __init__(
        self, predictors: Sequence[PicturePredictor], model: str, out: Path, *, overlay: bool = True, masks: bool = True
    ) -> None:
        self._tasks = predictors[0].tasks
        self._workers = len(predictors)
        self._predict = by_any(predictors)
        self._out = out
        self._overlay, self._masks = overlay, masks
        self._writer = ResultsWriter(out, model, self._tasks)
        self._stopwatch = Stopwatch()
        self._detections = 0

    def run(self, inputs: Inputs) -> Report:
        """Processes what was found. Only what concerns all of it (a full disk) is raised: OSError."""
        pictures, videos, complaints = inputs
        for entry, complaint in complaints:
            self._writer.add_failure(entry, complaint)
        files = pictures + videos
        names = distinct_stems(file.stem for file in files)
        progress = Progress(len(files))
        interrupted, start = False, time.perf_counter()
        with stop_flag() as stopped:
            try:
                self._pictures(pictures, names[: len(pictures)], progress, stopped)
                for index, (file, name) in enumerate(zip(videos, names[len(pictures) :], strict=True), len(pictures)):
                    if stopped():
                        break
                    progress.show(index, str(file))
                    try:
                        self._video(file, name, stopped)
                    except (ImageError, VideoError) as error:
                        self._writer.add_failure(str(file), str(error))
                interrupted = stopped()
            except KeyboardInterrupt:  # the second one
                interrupted = True
            finally:
                progress.clear()
                self._writer.save()
        return Report(
            self._writer.count,
            self._detections,
            tuple(self._writer.failed),
            self._stopwatch,
            time.perf_counter() - start,
            interrupted,
        )

    def _pictures(self, files: Sequence[Path], names: Sequence[str], progress: Progress, stopped: Stopped) -> None:
        done = in_order(self._picture, zip(files, names, strict=True), self._workers, stopped)
        for index, (file, work) in enumerate(zip(files, done, strict=False)):  # fewer results where it was stopped
            progress.show(index, str(file))
            if isinstance(work, ImageError):
                self._writer.add_failure(str(file), str(work))
            else:
                self._add(file, work)

    def _picture(self, entry: tuple[Path, str]) -> Work | ImageError:
        """In a worker's thread: from a file to files."""
        file, name = entry
        stopwatch = Stopwatch()
        try:
            with stopwatch.measure("decode"):
                picture = read_picture(file)
            prediction, overlay = self._look(picture, stopwatch)
        except ImageError as error:
            return error
        masks = {task: f"{MASKS}/{task}/{name}.png" for task in prediction.masks} if self._masks else {}
        if overlay is not None or masks:
            with stopwatch.measure("write"):
                for task, relative in masks.items():
                    write_mask(self._out / relative, prediction.masks[task])
                if overlay is not None:
                    write_picture(self._out / OVERLAYS / f"{name}.jpg", overlay)
        return Work(without_masks(prediction), masks, stopwatch.once())

    def _video(self, file: Path, name: str, stopped: Stopped) -> None:
        reader = VideoReader(file)
        progress = Progress(reader.count)
        with VideoWriter(self._out / OVERLAYS / f"{name}.mp4", reader.rate) as writer:
            for index, work in enumerate(in_order(self._frame, reader, self._workers, stopped)):
                progress.show(index, f"frames of {file}")
                if work.overlay is not None:
                    with self._stopwatch.measure("write"):
                        writer.write(work.overlay)
                self._add(file, work, index)

    def _frame(self, picture: Picture) -> Work:
        """In a worker's thread: a frame and what is drawn into it."""
        stopwatch = Stopwatch()
        prediction, overlay = self._look(picture, stopwatch)
        return Work(without_masks(prediction), {}, stopwatch.once(), overlay)

    def _look(self, picture: Picture, stopwatch: Stopwatch) -> tuple[Prediction, Picture | None]:
        """What is found, and drawn if that is wanted."""
        prediction = self._predict(picture)
        stopwatch.add(prediction.seconds)
        if not self._overlay:
            return prediction, None
        with stopwatch.measure("draw"):
            return prediction, draw_overlay(picture, prediction, self._tasks)

    def _add(self, file: Path, work: Work, frame: int | None = None) -> None:
        self._stopwatch.add(work.seconds)
        self._detections += len(work.prediction.detections)
        self._writer.add(str(file), work.prediction, work.masks, frame)


def without_masks(prediction: Prediction) -> Prediction:
    """Megabytes less to keep until the turn of its picture comes."""
    return replace(prediction, masks={})


def process(predictors: Sequence[PicturePredictor], inputs: Inputs, model: str, options: argparse.Namespace) -> int:
    """What a command does with the options of `add_arguments`: runs a batch, prints its report; the exit code."""
    batch = Batch(predictors, model, options.out, overlay=not options.no_overlay, masks=not options.no_masks)
    report = batch.run(inputs)
    if options.json:
        print(json.dumps({"out": str(options.out), **report.to_json()}, indent=1))
    else:
        # a file name may hold bytes that are no character
        print(report.text().encode(errors="backslashreplace").decode())
        print(f"written to {options.out}")
    return report.exit_code


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every command over pictures has."""
    parser.add_argument(
        "--images", nargs="+", required=True, metavar="FILE|DIR", help="pictures, videos, folders of either"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for results, masks and overlays")
    parser.add_argument(
        "--score-threshold",
        type=_score,
        default=SHOWN_SCORE,
        metavar="X",
        help=f"drop boxes with a score below X, 0 to 1 (default: {SHOWN_SCORE}; the model itself drops those below the "
        "threshold that it was built with)",
    )
    parser.add_argument("--tasks", type=_names, metavar="a,b", help="only these tasks (default: all)")
    parser.add_argument("--no-overlay", action="store_true", help="write no pictures with boxes and masks drawn in")
    parser.add_argument("--no-masks", action="store_true", help="write no masks")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, is {text}")
    return value


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("names no task")
    return names
