"""Plots of a run and of its metrics, by matplotlib, as files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from configs.schema import PREFIXES
from train.progress import RESULT_KEYS

matplotlib.use("Agg")  # files only: no display is asked for
PANEL = (4.2, 3.0)  # inches
COLUMNS = 3


def plot_results(results: Path, target: Path) -> None:
    """The learning curves in a run's results.csv: mean loss of every epoch by task, the steps one after the other."""
    with results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ["loss", *(name for name in rows[0] if name not in RESULT_KEYS)]
    figure, panels = _panels(len(names))
    for panel, name in zip(panels, names, strict=False):
        values = [float(row[name]) if row.get(name) else float("nan") for row in rows]
        panel.plot(range(1, len(rows) + 1), values, marker=".", color="tab:blue")
        for place, row in enumerate(rows):
            if row["epoch"] == "1":
                panel.axvline(place + 0.5, color="0.7", linewidth=0.8)
                style = {"transform": panel.get_xaxis_transform(), "size": 7, "rotation": 90, "va": "top"}
                panel.text(place + 0.6, 0.97, PREFIXES[int(row["step"])], **style)
        panel.set(title="all tasks" if name == "loss" else name, xlabel="epochs", ylabel="loss")
    _save(figure, target)


def plot_precision_recall(curves: Mapping[str, npt.NDArray[Any]], target: Path, title: str) -> None:
    """Precision over recall at IoU 0.50, in percent, a line for each class."""
    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    panel = figure.add_subplot()
    for name, precision in curves.items():
        panel.plot(np.arange(101), precision, label=f"{name}, AP {precision.mean():.1f}")
    panel.set(xlim=(0, 100), ylim=(0, 101), xlabel="recall, %", ylabel="precision, %", title=f"{title}, IoU 0.50")
    panel.legend(loc="best")
    panel.grid(alpha=0.3)
    _save(figure, target)


def plot_confusion(counts: npt.NDArray[np.int64], classes: Sequence[str], target: Path, title: str) -> None:
    """Where the pixels of each class went: percent of its labelled pixels, a row for each class."""
    shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 2.0 + 0.5 * len(classes)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    panel = figure.add_subplot()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(shares >= 0.5):
        ink = "white" if shares[row, column] > 60 else "black"
        panel.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", color=ink, size=8)
    panel.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    panel.set_yticks(range(len(classes)), classes)
    panel.set(xlabel="found", ylabel="labelled", title=f"{title}, % of the labelled pixels")
    _save(figure, target)


def _panels(count: int) -> tuple[Figure, list[Any]]:
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL[0], rows * PANEL[1]), layout="constrained")
    panels = [figure.add_subplot(rows, COLUMNS, place + 1) for place in range(count)]
    return figure, panels


def _save(figure: Figure, target: Path) -> None:
    """With no date in it: the same figure is the same file."""
    figure.savefig(target, dpi=110, metadata={"Software": None})
