"""`python -m train.train`: trains one of the steps 0 to 2 and exports its model."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from configs import ConfigError, load
from configs.schema import PREFIXES
from quant.errors import QuantError
from runtime.arguments import at_least
from runtime.errors import RuntimeRoomError
from train.data.errors import DataError
from train.errors import TrainError
from train.loop import Interrupted
from train.session import Request, train_step

DESCRIPTION = """Train one step: 0 with batch norms, 1 with the shared ones absorbed, 2 with all absorbed. Writes
checkpoints, results.csv, TensorBoard files and the export model (ONNX) to the run's folder. Exit code: 0 trained,
2 something has to be put right first, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.train", description=DESCRIPTION)
    parser.add_argument("--config", type=Path, required=True, metavar="C", help="configs/4pe_resize/multitask.py, say")
    parser.add_argument("--step", type=int, required=True, choices=(0, 1, 2), help=", ".join(PREFIXES[:3]))
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the run (default: runs/<config's folder>)")
    parser.add_argument("--pipeline-test", action="store_true", help="few iterations on the validation data")
    parser.add_argument(
        "--ctx", metavar="CTX", help="cpu (cpu,cpu: two processes), or GPUs, 0,1 (default: the config's default_ctx)"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the step's newest checkpoint")
    parser.add_argument(
        "--init", type=Path, metavar="PARAMS", help="step 0 begins with the weights of this checkpoint of a step 0"
    )
    parser.add_argument(
        "--seed", type=at_least(0), metavar="N", help="of everything random (default: the config's env.seed)"
    )
    options = parser.parse_args(arguments)
    if options.init is not None and (options.step or not options.init.is_file()):
        parser.error(f"--init {options.init}: " + ("is for step 0" if options.step else "no such checkpoint"))
    try:
        config = load(options.config)
        request = Request(
            config,
            options.step,
            options.out or Path("runs") / options.config.resolve().parent.name,
            pipeline_test=options.pipeline_test,
            ctx=options.ctx or config.common.default_ctx,
            resume=options.resume,
            seed=config.env.seed if options.seed is None else options.seed,
            init=options.init,
        )
        train_step(request)
    except (TrainError, ConfigError, DataError, QuantError, RuntimeRoomError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; free space or correct --out, then continue with --resume", file=sys.stderr)
        return 2
    except Interrupted as stop:
        given = list(sys.argv[1:] if arguments is None else arguments)
        command = ["python", "-m", "train.train", *given, *([] if options.resume else ["--resume"])]
        print(f"\nstopped; all is saved in {stop}. Continue with:\n  {shlex.join(command)}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\ninterrupted; continue from the last checkpoint with --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
