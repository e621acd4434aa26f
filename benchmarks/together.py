"""Trains the crop variant on embedded scenes and measures what it adds to the resize variant on large pictures.

    python benchmarks/together.py

Trains, builds and verifies both variants' embedded.py (the resize one is that of `benchmarks/embedded.py`: where it was
run before, it is taken over), then shows scenes of 1080x1920 that no step has seen to the compiled resize model alone
and to both together, and compares mAP50 by the objects' size. Writes docs/together.md and docs/together.jpg. Called
again after an interruption it continues. Exit code 1 where the two together are no better at what is small.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from phases import REPOSITORY, Clock, command, leave_with
from unseen import UNSEEN, make, on_scenes

from configs import Config, load
from runtime.predict import PicturePredictor, Predictor
from runtime.processor import processor_name
from runtime.together import PredictorsTogether
from train import evaluate
from train.metrics import SIZES, BoxMetric

CONFIGS = {name: REPOSITORY / f"configs/4pe_{name}/embedded.py" for name in ("resize", "crop")}
REPORT, PICTURE = REPOSITORY / "docs/together.md", REPOSITORY / "docs/together.jpg"
SCENES = UNSEEN.model_copy(update={"count": 100, "sizes": ((1080, 1920),)})
MODEL = "int-inference-export-last.so"
ALONE, BOTH = "resize alone", "resize and crop"
VERIFY_SCENES = 4


def measure(predictor: PicturePredictor, config: Config) -> dict[str, dict[str, Any]]:
    """Per task: mAP50 of all boxes and by size, or mean IoU."""
    metrics = evaluate.measure(predictor, on_scenes(config, SCENES), data=None, limit=None, progress=True)
    results: dict[str, dict[str, Any]] = {}
    for name, metric in metrics.items():
        if isinstance(metric, BoxMetric):
            results[name] = {"mAP50": metric.result()["map50"], **metric.map50_by_size()}
        else:
            results[name] = {"mIoU": metric.result()["miou"]}
    return results


def report(results: dict[str, dict[str, dict[str, Any]]], clocks: dict[str, Clock]) -> str:
    """docs/together.md."""
    times = ", ".join(f"{name} {clock.minutes:.0f} minutes" for name, clock in clocks.items())
    lines = [
        "# Near and far: the resize and the crop variant on one picture",
        "",
        "Written by `python benchmarks/together.py`: do not edit.",
        "",
        f"`configs/4pe_resize/embedded.py` and `configs/4pe_crop/embedded.py`, trained on embedded scenes ({times} on "
        f"{processor_name()}) and compiled to int8. Measured on {SCENES.count} embedded scenes of 1080x1920 (seeds "
        f"{SCENES.seed} to {SCENES.seed + SCENES.count - 1}) that no step has seen: mAP50 of boxes in the picture's "
        "pixels, percent; small, medium and large are COCO's (areas below 32², below 96², above). The resize "
        "model sees the picture at half its size, the crop model a window of 448x1216 around the horizon at full "
        "size; their boxes are merged as `runtime.infer` with `--model` twice does it.",
        "",
        "![A scene's window around the horizon: above what the resize model finds, below what both find](together.jpg)",
        "",
        f"| task | boxes | {ALONE} | {BOTH} | difference |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for task, values in results[ALONE].items():
        for key, alone in values.items():
            both = results[BOTH][task][key]
            if alone is not None:
                title = {"mAP50": "all", "mIoU": "(mean IoU)"}.get(key, key)
                lines.append(f"| {task} | {title} | {alone:.2f} | {both:.2f} | {both - alone:+.2f} |")
    return "\n".join(lines) + "\n"


def draw(models: dict[str, Path], scenes: Path, window: tuple[float, float, float, float]) -> None:
    """docs/together.jpg: of one unseen scene the crop's window, found by the resize model above, by both below."""
    left, top, right, bottom = (round(edge) for edge in window)
    scene = min(scenes.glob("*.png"))
    shown = []
    for name, chosen in {"alone": ["resize"], "both": ["resize", "crop"]}.items():
        out = models["crop"].parent / f"infer-{name}"
        arguments = [part for one in chosen for part in ("--model", models[one])]
        command("runtime.infer", *arguments, "--images", scene, "--out", out)
        shown.append(cv2.imread(str(out / f"overlays/{scene.stem}.jpg"))[top:bottom, left:right])
    gap = np.full((6, right - left, 3), 255, np.uint8)
    both = np.concatenate([shown[0], gap, shown[1]])
    cv2.imwrite(str(PICTURE), both, [cv2.IMWRITE_JPEG_QUALITY, 85])


def verdict(results: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """What does not hold; empty where all is well."""
    small, problems = SIZES[0], []
    for task, values in results[ALONE].items():
        alone, both = values.get(small), results[BOTH][task].get(small)
        if alone is not None and both <= alone:
            problems.append(f"{task}: of small boxes both find {both:.1f}, the resize model alone {alone:.1f}")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = {"resize": REPOSITORY / "runs/embedded", "crop": REPOSITORY / "runs/embedded-crop"}
    for name, folder in runs.items():
        parser.add_argument(f"--{name}", type=Path, default=folder, metavar="RUN", help=f"folder of the {name} run")
    parser.add_argument("--json", type=Path, metavar="F", help="write the metrics to this file, too")
    options = parser.parse_args(arguments)
    folders = {name: getattr(options, name).resolve() for name in runs}
    clocks = {name: Clock(folder) for name, folder in folders.items()}
    models, scenes = {name: folder / MODEL for name, folder in folders.items()}, folders["crop"] / "verify-scenes"
    for name, folder in folders.items():
        make(CONFIGS[name], folder, clocks[name], SCENES, count=VERIFY_SCENES, pictures=scenes)
    near, far = (Predictor.load(model) for model in models.values())
    config = load(CONFIGS["resize"])
    results = {}
    for name, predictor in {ALONE: near, BOTH: PredictorsTogether([near, far])}.items():
        print(f"{name}: {SCENES.count} unseen scenes", flush=True)
        results[name] = measure(predictor, config)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    text = report(results, clocks)
    print(text)
    problems = verdict(results)
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    if problems:
        return 1
    REPORT.write_text(text, encoding="utf-8")
    draw(models, scenes, far.window(SCENES.sizes[0]))
    print(f"wrote {REPORT} and {PICTURE}")
    return 0


if __name__ == "__main__":
    leave_with(main)
