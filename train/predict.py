"""`python -m train.predict`: the exported step 2 model on pictures and videos; writes what `runtime.infer` writes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs import ConfigError, load
from quant.errors import QuantError
from runtime.batch import add_arguments, process
from runtime.errors import RuntimeRoomError
from runtime.image import find_inputs
from train.engines import load_predictor
from train.errors import TrainError

DESCRIPTION = """Run an exported model (or a checkpoint, or a compiled one) on pictures, folders of pictures and videos,
in ONNX Runtime. Writes results.json, COCO results, class-index masks and overlays to the folder --out. Exit code: 0 all
went well, 1 some inputs could not be processed, 2 nothing could start, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.predict", description=DESCRIPTION)
    parser.add_argument("--config", type=Path, required=True, metavar="C", help="the config it was trained with")
    parser.add_argument("--model", type=Path, required=True, metavar="ONNX", help="RUN/fusion-bn-c2-export-last.onnx")
    parser.add_argument("--ctx", default="cpu", metavar="CTX", help="cpu, or the number of a GPU (default: cpu)")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
        predictor = load_predictor(
            options.model, config, score_threshold=options.score_threshold, only=options.tasks, ctx=options.ctx
        )
        return process([predictor], find_inputs(options.images), str(options.model), options)
    except (TrainError, ConfigError, RuntimeRoomError, QuantError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before the first picture", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
