"""Trains the six tasks on embedded scenes within an hour and measures what came of it on 200 scenes never seen.

    python benchmarks/embedded.py

Steps 0 to 2, compile.build and compile.verify, then the metrics of three models: the float one (step 0), step 2 and the
compiled one, beside those of a predictor that always says the same. Writes docs/embedded.md and docs/demo.jpg. Called
again after an interruption it continues. Exit code 1 where step 3 differs from step 2 in the last digit, or a task
learned nothing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from phases import REPOSITORY, Clock, command, headline, leave_with
from unseen import UNSEEN, make, on_scenes

from configs import Config, load
from configs.schema import IGNORE_LABEL
from runtime.processor import processor_name
from train.data.dataset import open_source
from train.engines import load_predictor
from train.evaluate import evaluate
from train.metrics import percent

CONFIG = REPOSITORY / "configs/4pe_resize/embedded.py"
REPORT, PICTURE = REPOSITORY / "docs/embedded.md", REPOSITORY / "docs/demo.jpg"
MODELS = {
    "float": "with-bn-export-last.onnx",
    "step 2": "fusion-bn-c2-export-last.onnx",
    "step 3": "int-inference-export-last.so",
}
VERIFY_SCENES = 8  # two of each size
SHOWN_WIDTH = 1800
LIMIT = 60.0  # minutes of training
FAR = 2.0  # a task has to be this many times as good as the trivial predictor,
LEAST = 10.0  # and this many percent


def trivial(config: Config) -> dict[str, float]:
    """Per task the metric of a predictor that looks at nothing: no boxes at all, or everywhere the commonest class."""
    values = {task.name: 0.0 for task in config.tasks}
    counts = {task.name: np.zeros(len(task.classes), np.int64) for task in config.tasks if task.kind == "segmentation"}
    for sample in open_source(UNSEEN):
        for name, count in counts.items():
            labels = sample.masks[name]
            count += np.bincount(labels[labels != IGNORE_LABEL], minlength=len(count))
    for name, count in counts.items():
        # the commonest class is found wherever it is, and marked wherever another one is; the others are never found
        values[name] = percent(count.max() / count.sum() / np.count_nonzero(count))
    return values


def report(config: Config, results: dict[str, Any], clock: Clock, baseline: dict[str, float]) -> str:
    """docs/embedded.md."""
    lines = [
        "# Six tasks on embedded scenes, in an hour",
        "",
        "Written by `python benchmarks/embedded.py`: do not edit.",
        "",
        f"Steps 0 to 2 took {clock.minutes:.0f} minutes ({clock}) on {processor_name()}, {config.common.threads} "
        "threads. Step 0 is plain float training "
        f"({config.env.float_precision} where autocast allows it), steps 1 and 2 are quantization training in float32. "
        f"Config: `configs/4pe_resize/embedded.py`, seed {config.env.seed}.",
        "",
        f"Measured on {UNSEEN.count} embedded scenes (seeds {UNSEEN.seed} to {UNSEEN.seed + UNSEEN.count - 1}, "
        "at the four source sizes in turn), which no step has seen: COCO mAP (IoU 0.50:0.95) and mAP50 of boxes in the "
        "original picture's pixels, mean IoU over all pixels that the network was shown; percent. *Trivial*: no boxes "
        "at all, or everywhere the commonest class. Step 3 is the compiled int8 model; its numbers equal those of "
        "step 2 to the last digit, which the command checks before it writes this page.",
        "",
        "| task | class | metric | trivial | float | step 2 | step 3 |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for task in config.tasks:
        entries = {model: result["tasks"][task.name] for model, result in results.items()}
        metrics = {"miou": "mIoU"} if task.kind == "segmentation" else {"map50": "mAP50", "map": "mAP"}
        for key, title in metrics.items():
            lines.append(_row(f"**{task.name}**", "all", title, f"{baseline[task.name]:.1f}", entries, key))
        key, title = next(iter(metrics.items()))
        for name in entries["float"]["per_class"]:
            lines.append(_row("", name, title, "", {m: entry["per_class"][name] for m, entry in entries.items()}, key))
    return "\n".join(lines) + "\n"


def _row(task: str, name: str, metric: str, trivial_value: str, entries: dict[str, Any], key: str) -> str:
    values = ["" if entry[key] is None else f"{entry[key]:.2f}" for entry in entries.values()]
    return f"| {' | '.join([task, name, metric, trivial_value, *values])} |"


def draw(run: Path) -> None:
    """docs/demo.jpg: what the compiled model finds in two of the unseen scenes."""
    scenes, out = run / "verify-scenes", run / "infer"
    command("runtime.infer", "--model", run / MODELS["step 3"], "--images", scenes, "--out", out)
    of_one_size = sorted((out / "overlays").glob("*.jpg"))[:: len(UNSEEN.sizes)]
    both = np.concatenate([cv2.imread(str(path)) for path in of_one_size], axis=1)
    scale = SHOWN_WIDTH / both.shape[1]
    both = cv2.resize(both, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(PICTURE), both, [cv2.IMWRITE_JPEG_QUALITY, 85])


def verdict(config: Config, results: dict[str, Any], clock: Clock, baseline: dict[str, float]) -> list[str]:
    """What does not hold; empty where all is well."""
    problems = [] if results["step 2"] == results["step 3"] else ["step 3's metrics differ from step 2's"]
    if clock.minutes > LIMIT:
        problems.append(f"training took {clock.minutes:.0f} minutes, over {LIMIT:.0f}")
    for task in config.tasks:
        value = headline(results["step 3"]["tasks"][task.name])
        if value < max(LEAST, FAR * baseline[task.name]):
            problems.append(f"{task.name}: {value:.1f} is not far above the trivial {baseline[task.name]:.1f}")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "runs/embedded", metavar="RUN", help="folder of the run"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the metrics to this file, too")
    options = parser.parse_args(arguments)
    run: Path = options.out.resolve()
    clock = Clock(run)
    make(CONFIG, run, clock, UNSEEN, count=VERIFY_SCENES, pictures=run / "verify-scenes")
    config = on_scenes(load(CONFIG), UNSEEN)
    results = {}
    for model, file in MODELS.items():
        print(f"{model}: {file} on {UNSEEN.count} unseen scenes", flush=True)
        results[model] = evaluate(load_predictor(run / file, config), config, progress=True)
    print("trivial predictor", flush=True)
    baseline = trivial(config)
    if options.json:
        options.json.write_text(
            json.dumps({"seconds": clock.seconds, "trivial": baseline, "models": results}, indent=1) + "\n"
        )
    text = report(config, results, clock, baseline)
    print(text)
    problems = verdict(config, results, clock, baseline)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if problems:
        return 1
    REPORT.write_text(text, encoding="utf-8")
    draw(run)
    print(f"wrote {REPORT} and {PICTURE}")
    return 0


if __name__ == "__main__":
    leave_with(main)
