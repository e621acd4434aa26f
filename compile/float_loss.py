"""What quantization loses against float, by layer and by output, on pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from compile.tensor_statistics import Picture, Run
from runtime.files import write_atomically

WORST = 5  # layers named for people


@dataclass
class Loss:
    """Of one tensor over all pictures: sums of squares of the float values, the quantized ones, their differences, and
    of the products of the two.
    """

    float_square: float = 0.0
    quantized_square: float = 0.0
    error_square: float = 0.0
    product: float = 0.0

    def add(self, exact: NDArray[np.float32], quantized: NDArray[np.float32]) -> None:
        """One picture's values."""
        a, b = exact.astype(np.float64).ravel(), quantized.astype(np.float64).ravel()
        self.float_square += float(a @ a)
        self.quantized_square += float(b @ b)
        self.error_square += float(np.square(a - b).sum())
        self.product += float(a @ b)

    @property
    def cosine(self) -> float:
        """Of the angle between the two; 1 where both are 0 throughout."""
        lengths = float(np.sqrt(self.float_square * self.quantized_square))
        return self.product / lengths if lengths else float(self.float_square == self.quantized_square)

    @property
    def noise(self) -> float:
        """Share of the float values' energy that the differences have."""
        return self.error_square / self.float_square if self.float_square else float(self.error_square > 0)

    def to_json(self) -> dict[str, float | None]:
        """JSON-able; signal to noise in decibels, null where nothing is lost."""
        decibels = round(-10 * float(np.log10(self.noise)), 2) if self.noise else None
        return {"cosine": round(self.cosine, 6), "signal_to_noise_db": decibels}


@dataclass(frozen=True)
class FloatLoss:
    """By output, and by layer in the graph's order: the float tensor's name."""

    outputs: dict[str, Loss]
    layers: dict[str, Loss]

    @property
    def noise(self) -> float:
        """Mean over the outputs: by it, ways to quantize are compared."""
        return float(np.mean([loss.noise for loss in self.outputs.values()]))

    @property
    def worst_layer(self) -> str | None:
        """That with the lowest cosine; None where only outputs were quantized."""
        return min(self.layers, key=lambda name: self.layers[name].cosine, default=None)

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        parts = {"outputs": self.outputs, "layers": self.layers}
        return {
            "worst_layer": self.worst_layer,
            **{part: {name: loss.to_json() for name, loss in losses.items()} for part, losses in parts.items()},
        }

    def table(self) -> Table:
        """A row for every output."""
        table = Table("output", "cosine with float", "signal to noise", title="what calibration loses against float")
        for name, loss in self.outputs.items():
            decibels = loss.to_json()["signal_to_noise_db"]
            table.add_row(name, f"{loss.cosine:.4f}", "" if decibels is None else f"{decibels:.1f} dB")
        return table

    def worst_layers(self) -> str:
        """The names of a few, for people."""
        worst = sorted(self.layers, key=lambda name: self.layers[name].cosine)[:WORST]
        return ", ".join(f"{name} ({self.layers[name].cosine:.4f})" for name in worst)


def measure(
    exact: Run, quantized: Sequence[Run], layers: Mapping[str, str], outputs: Sequence[str], pictures: Iterable[Picture]
) -> list[FloatLoss]:
    """Of every quantized model. `layers`: by the name of a float tensor, that of the tensor which stands for it in the
    quantized ones. Outputs have one name in all.
    """
    losses = [FloatLoss({name: Loss() for name in outputs}, {name: Loss() for name in layers}) for _ in quantized]
    for picture in pictures:
        a = exact(picture)
        for run, loss in zip(quantized, losses, strict=True):
            b = run(picture)
            for name, entry in loss.outputs.items():
                entry.add(a[name], b[name])
            for name, entry in loss.layers.items():
                entry.add(a[name], b[layers[name]])
    return losses


def write(path: Path, loss: FloatLoss, facts: Mapping[str, Any]) -> None:
    """The report as JSON, `facts` first."""
    write_atomically(path, (json.dumps({**facts, **loss.to_json()}, indent=1) + "\n").encode())
