"""`python -m runtime.infer`: a compiled model, or several together, on pictures and videos."""

import argparse
import os
import sys
from collections.abc import Sequence

import cv2

from runtime.batch import add_arguments, process
from runtime.errors import RuntimeRoomError
from runtime.image import Inputs, find_inputs
from runtime.predict import PicturePredictor, Predictor
from runtime.together import PredictorsTogether

DESCRIPTION = """Run a compiled model on pictures, folders of pictures and videos. Writes results.json, COCO results,
class-index masks and overlays to the folder --out. Exit code: 0 all went well, 1 some inputs could not be processed,
2 nothing could start, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtime.infer", description=DESCRIPTION)
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="SO",
        help="the .so that compile.build wrote, its .json beside it; given several times, such as resize and crop, all "
        "look at every picture and their boxes are merged",
    )
    add_arguments(parser)
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="threads to use: for as many pictures at a time, or all for one alone (default: one to a processor)",
    )
    options = parser.parse_args(arguments)
    try:
        inputs = find_inputs(options.images)
        return process(load_predictors(options, inputs), inputs, ", ".join(options.model), options)
    except (RuntimeRoomError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before the first picture", file=sys.stderr)
        return 130


def load_predictors(options: argparse.Namespace, inputs: Inputs) -> Sequence[PicturePredictor]:
    """One to a thread, whose kernels use no other; for a single picture one whose kernels use all threads."""
    pictures, videos, _ = inputs
    workers = options.threads if len(pictures) > 1 or videos else 1
    several = len(options.model) > 1
    loaded = [
        Predictor.load(
            model,
            score_threshold=options.score_threshold,
            only=None if several else options.tasks,
            masks=not (options.no_masks and options.no_overlay),
            threads=1 if workers > 1 else options.threads,
        )
        for model in options.model
    ]
    predictor = PredictorsTogether(loaded, options.tasks) if several else loaded[0]
    if workers > 1:
        cv2.setNumThreads(1)  # every picture has a thread already
    return predictor.twins(max(workers, 1))


if __name__ == "__main__":
    sys.exit(main())
