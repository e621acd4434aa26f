"""`python -m runtime.infer`: a compiled model on pictures and videos."""

import argparse
import sys
from collections.abc import Sequence

from runtime.batch import add_arguments, process
from runtime.errors import RuntimeRoomError
from runtime.predict import Predictor

DESCRIPTION = """Run a compiled model on pictures, folders of pictures and videos. Writes results.json, COCO results,
class-index masks and overlays to the folder --out. Exit code: 0 all went well, 1 some inputs could not be processed,
2 nothing could start, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m runtime.infer", description=DESCRIPTION)
    parser.add_argument(
        "--model", required=True, metavar="SO", help="the .so that compile.build wrote, its .json beside it"
    )
    add_arguments(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads that kernels may use (default: TVM's choice)")
    options = parser.parse_args(arguments)
    try:
        predictor = Predictor.load(
            options.model, score_threshold=options.score_threshold, only=options.tasks, threads=options.threads
        )
        return process(predictor, options.model, options)
    except (RuntimeRoomError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before the first picture", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
