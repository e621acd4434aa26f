"""Element by element: what differs between step 2 and step 3, summed up over pictures."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Tally:
    """One output or layer over all pictures. `largest_difference` is in steps of its grid."""

    name: str
    elements: int = 0
    mismatches: int = 0
    largest_difference: float = 0.0
    first_differing_layer: str | None = None

    def add(self, ours: NDArray[Any], theirs: NDArray[Any], shift: int | None) -> int:
        """Counts what differs, and returns it.

        Integers are compared as they are, float values of step 2 with q * 2^-shift.
        """
        self.elements += ours.size
        if ours.shape != theirs.shape:
            self.mismatches += ours.size
            self.largest_difference = float("inf")
            return int(ours.size)
        # float64 holds every int32 and every scaled float32 exactly
        left, right = ours.astype(np.float64), theirs.astype(np.float64)
        if shift is not None and theirs.dtype.kind == "f":
            right = np.ldexp(right, shift)
        wrong = int(np.count_nonzero(left != right))
        if wrong:
            self.mismatches += wrong
            self.largest_difference = max(self.largest_difference, float(np.abs(left - right).max()))
        return wrong

    def to_json(self) -> dict[str, Any]:
        """JSON-able; no largest difference (None) where shapes differ or a value is no number."""
        return {
            "name": self.name,
            "elements": self.elements,
            "mismatches": self.mismatches,
            "largest_difference": self.largest_difference if np.isfinite(self.largest_difference) else None,
            "first_differing_layer": self.first_differing_layer,
        }


@dataclass
class Comparison:
    """All outputs and layers, and the reasons beside the numbers for which a model is not step 2's."""

    outputs: dict[str, Tally] = field(default_factory=dict)
    layers: dict[str, Tally] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    pictures: int = 0

    def output(self, name: str) -> Tally:
        return self.outputs.setdefault(name, Tally(name))

    def layer(self, name: str) -> Tally:
        return self.layers.setdefault(name, Tally(name))

    @property
    def mismatches(self) -> int:
        return sum(tally.mismatches for tally in self.outputs.values())

    @property
    def differing_layers(self) -> list[str]:
        """Layers with a difference, in the order of execution: the first is where the fault is."""
        return [tally.name for tally in self.layers.values() if tally.mismatches]

    @property
    def equal(self) -> bool:
        """The verdict; nothing compared is not equal."""
        return self.pictures > 0 and not (self.mismatches or self.differing_layers or self.problems)
