"""docs/accuracy.md and what lies beside it."""

import shutil
from pathlib import Path
from typing import Any

from phases import Clock

from configs import Config
from runtime.processor import processor_name

METRICS = {"miou": "mIoU", "line_f1": "line F1", "line_iou": "line IoU", "map50": "mAP50", "map": "mAP"}
COMMANDS = {"accuracy": "accuracy.py", "accuracy-night": "accuracy.py --night"}
KEPT = ("results.csv", "results.png", "run.json")


def page(config: Config, results: dict[str, Any], clock: Clock, name: str, *, scenes: int) -> str:
    """The text of docs/NAME.md; `scenes`: how many there are for validation."""
    iterations = ", ".join(str(entry.epochs * entry.iterations_per_epoch) for entry in config.solver[:3])
    lines = [
        "# Accuracy: float, step 2, step 3",
        "",
        f"Written by `python benchmarks/{COMMANDS[name]}`: do not edit.",
        "",
        f"Six tasks trained from nothing on {processor_name()}, {config.common.threads} threads, in "
        f"{clock.minutes:.0f} minutes ({clock}). Config: `configs/camvid/{Path(config.file).name}`, seed "
        f"{config.env.seed}; [log]({name}/results.csv), [curves]({name}/results.png).",
        "",
        "- **Data.** CamVid's 367 training frames of 360x480 (segmentation; boxes by connected components), 8 frames "
        "of comma10k (lines), embedded scenes of the same size. Nothing was pretrained.",
        f"- **Step 2, step 3.** Steps 0 to 2 take {iterations} iterations, the first "
        f"{config.solver[0].quant_delay:.0%} of step 0 in float, all others in quantization training. Step 3 is the "
        "compiled int8 model; its numbers equal step 2's to the last digit, "
        "which the command checks, and its outputs on CamVid's validation frames element by element.",
        "- **Float.** The same network trained in float throughout: as many iterations at the same learning rates, the "
        "first ones, up to where step 0 begins to quantize, the very same.",
        "- **Metrics**, in percent. CamVid: its 101 validation frames, one confusion matrix over all pixels at the "
        "labels' own resolution, 11 classes, void left out. They flatter: one drive stands on both sides of the split. "
        f"Scenes: {scenes} embedded scenes never seen. comma10k: 3 frames, which say little. mAP50, mAP as COCO's; "
        "line F1, line IoU over pixels, all classes but background taken as one. All: what `train.evaluate` prints for "
        "the config's own validation data, every task on all of its sets.",
        "",
        "| set | task | class | metric | float | step 2 | step 3 | int8 - float |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, tasks in results["step 3"].items():
        for task in tasks:
            entries = {model: result[name][task] for model, result in results.items()}
            lines += _rows(name, task, entries)
    return "\n".join(lines) + "\n"


def _rows(name: str, task: str, entries: dict[str, dict[str, Any]]) -> list[str]:
    own = [key for key in METRICS if key in entries["float"]]
    rows = [_row(f"**{name}**", f"**{task}**", "all", key, entries) for key in own]
    for class_name in entries["float"]["per_class"]:
        of_class = {model: entry["per_class"][class_name] for model, entry in entries.items()}
        if of_class["float"][own[0]] is not None:
            rows.append(_row("", "", class_name, own[0], of_class))
    return rows


def _row(name: str, task: str, class_name: str, key: str, entries: dict[str, dict[str, Any]]) -> str:
    values = [entry[key] for entry in entries.values()]
    if None in values:
        return f"| {name} | {task} | {class_name} | {METRICS[key]} | | | | |"
    title = "IoU" if key == "miou" and class_name != "all" else METRICS[key]
    cells = [f"{value:.2f}" for value in values] + [f"{values[-1] - values[0]:+.2f}"]
    return f"| {' | '.join([name, task, class_name, title, *cells])} |"


def write(text: str, run: Path, docs: Path, name: str) -> None:
    """The page, and the run's log and curves beside it."""
    page_file, folder = docs / f"{name}.md", docs / name
    page_file.write_text(text, encoding="utf-8")
    folder.mkdir(exist_ok=True)
    for kept in KEPT:
        shutil.copyfile(run / kept, folder / kept)
    print(f"wrote {page_file}")
