"""Many pictures and videos through one predictor: what `runtime.infer` and `train.predict` share.

A file that cannot be processed is noted and the rest goes on; an interruption keeps all that was done.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.draw import draw_overlay
from runtime.errors import ImageError, VideoError
from runtime.image import find_inputs, read_picture
from runtime.predict import Prediction, Predictor
from runtime.results import ResultsWriter, unique_names, write_mask, write_picture
from runtime.timing import Progress, Stopwatch, statistics_table
from runtime.video import VideoReader, VideoWriter

OVERLAYS, MASKS = "overlays", "masks"
SHOWN_SCORE = 0.3


@dataclass(frozen=True)
class Report:
    """What a batch came to: pictures and frames processed, what failed, and the times of the parts of the work."""

    count: int
    detections: int
    failed: tuple[dict[str, str], ...]
    stopwatch: Stopwatch
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if something failed, 130 if the user interrupted."""
        return 130 if self.interrupted else int(bool(self.failed))

    def to_json(self) -> dict[str, Any]:
        """JSON-able; milliseconds per part."""
        return {
            "images": self.count,
            "detections": self.detections,
            "failed": list(self.failed),
            "interrupted": self.interrupted,
            "milliseconds": {part: row.to_json() for part, row in self.stopwatch.statistics().items()},
        }

    def text(self) -> str:
        """For people: the times, and at the end what failed."""
        lines = []
        if self.count:
            lines += [statistics_table(self.stopwatch.statistics()), ""]
        lines.append(f"{_plural(self.count, 'picture')}, {_plural(self.detections, 'detection')}")
        if self.interrupted:
            lines.append("interrupted: the results so far are complete, the rest was not looked at")
        if self.failed:
            lines.append(f"{_plural(len(self.failed), 'input')} could not be processed:")
            lines += [f"  {failure['error']}" for failure in self.failed]
        return "\n".join(lines)


class Batch:
    """One run over many inputs. `model` names the model in results.json, `out` is the folder that everything goes to:

    results.json and its two COCO companions, `masks/<task>/<name>.png` (class indices at the picture's own size, 255
    where the network was not shown the picture), `overlays/<name>.jpg`, and for a video `overlays/<name>.mp4`.
    """

    def __init__(self, predictor: Predictor, model: str, out: Path, *, overlay: bool = True) -> None:
        self._predictor = predictor
        self._out = out
        self._overlay = overlay
        self._writer = ResultsWriter(out, model, predictor.tasks)
        self._stopwatch = Stopwatch()
        self._detections = 0

    def run(self, inputs: Sequence[str | Path]) -> Report:
        """Processes the files and folders named. Only what concerns all of them (a full disk) is raised: OSError."""
        pictures, videos, complaints = find_inputs(inputs)
        for entry, complaint in complaints:
            self._writer.add_failure(entry, complaint)
        files = pictures + videos
        progress = Progress(len(files))
        interrupted = False
        try:
            for index, (file, name) in enumerate(zip(files, unique_names(files), strict=True)):
                progress.show(index, str(file))
                try:
                    if index < len(pictures):
                        self._picture(file, name)
                    else:
                        self._video(file, name)
                except (ImageError, VideoError) as error:
                    self._writer.add_failure(str(file), str(error))
        except KeyboardInterrupt:
            interrupted = True
        finally:
            progress.clear()
            self._writer.save()
        return Report(self._writer.count, self._detections, tuple(self._writer.failed), self._stopwatch, interrupted)

    def _picture(self, file: Path, name: str) -> None:
        with self._stopwatch.measure("decode"):
            picture = read_picture(file)
        prediction = self._predict(picture)
        masks = {task: f"{MASKS}/{task}/{name}.png" for task in prediction.masks}
        if self._overlay:
            with self._stopwatch.measure("draw"):
                overlay = draw_overlay(picture, prediction, self._predictor.tasks)
        with self._stopwatch.measure("write"):
            for task, relative in masks.items():
                write_mask(self._out / relative, prediction.masks[task])
            if self._overlay:
                write_picture(self._out / OVERLAYS / f"{name}.jpg", overlay)
        self._writer.add(str(file), prediction, masks)

    def _video(self, file: Path, name: str) -> None:
        reader = VideoReader(file)
        progress = Progress(reader.count)
        with VideoWriter(self._out / OVERLAYS / f"{name}.mp4", reader.rate) as writer:
            for index, picture in enumerate(reader):
                progress.show(index, f"frames of {file}")
                prediction = self._predict(picture)
                if self._overlay:
                    with self._stopwatch.measure("draw"):
                        overlay = draw_overlay(picture, prediction, self._predictor.tasks)
                    with self._stopwatch.measure("write"):
                        writer.write(overlay)
                self._writer.add(str(file), prediction, {}, frame=index)

    def _predict(self, picture: Any) -> Prediction:
        prediction = self._predictor(picture)
        self._stopwatch.add(prediction.seconds)
        self._detections += len(prediction.detections)
        return prediction


def process(predictor: Predictor, model: str, options: argparse.Namespace) -> int:
    """What a command does with the options of `add_arguments`: runs a batch, prints its report; the exit code."""
    report = Batch(predictor, model, options.out, overlay=not options.no_overlay).run(options.images)
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
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, is {text}")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
