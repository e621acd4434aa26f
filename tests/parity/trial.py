"""What all parties made of some pictures, and what of it is not numpy's: by party and layer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tests.parity.harness import NUMPY, Parties
from tests.parity.numpy_interpreter import Array, Strength, Values, strengths


@dataclass(frozen=True)
class Difference:
    """A layer in which a party is not numpy."""

    party: str
    layer: str
    text: str

    def __str__(self) -> str:
        return f"{self.party}: {self.layer}: {self.text}"


def differences(results: Mapping[str, Values]) -> list[Difference]:
    """Whatever is not numpy's to the last element, party by party, the layers in the order of execution."""
    reference = results[NUMPY]
    found = []
    for party, values in results.items():
        assert values.keys() <= reference.keys(), f"{party} has layers that numpy has not"
        for layer in reference:
            if layer in values and not np.array_equal(values[layer], reference[layer]):
                found.append(Difference(party, layer, _describe(values[layer], reference[layer])))
    return found


def _describe(theirs: Array, ours: Array) -> str:
    if theirs.shape != ours.shape:
        return f"shape {theirs.shape}, numpy's is {ours.shape}"
    wrong = np.argwhere(theirs != ours)
    first = tuple(int(index) for index in wrong[0])
    return f"{len(wrong)} of {ours.size} elements, the first at {first}: {theirs[first]}, numpy's {ours[first]}"


@dataclass(frozen=True, repr=False)
class Trial:
    """What all parties made of some pictures."""

    parties: Parties
    pictures: list[Array]
    im_hw: tuple[int, int] | None
    results: list[dict[str, Values]]

    @classmethod
    def of(cls, parties: Parties, pictures: list[Array], im_hw: tuple[int, int] | None = None) -> "Trial":
        return cls(parties, pictures, im_hw, [parties.run(picture, im_hw) for picture in pictures])

    def differences(self) -> list[Difference]:
        """Over all pictures."""
        return [difference for results in self.results for difference in differences(results)]

    def first_differences(self) -> list[str]:
        """Where each party goes astray: its first layer that is not numpy's, picture by picture."""
        first = {}
        for number, results in enumerate(self.results):
            for found in differences(results):
                first.setdefault((number, found.party), f"picture {number}: {found}")
        return list(first.values())

    def with_numpy_anew(self) -> "Trial":
        """The others' values beside what numpy computes now."""
        anew = [
            results | {NUMPY: self.parties.numpy(picture, self.im_hw)}
            for picture, results in zip(self.pictures, self.results, strict=True)
        ]
        return replace(self, results=anew)

    def strengths(self) -> dict[str, Strength]:
        """By layer, over all pictures."""
        total: dict[str, Strength] = {}
        for picture in self.pictures:
            for name, found in strengths(self.parties.module, self.parties.parameters, picture).items():
                total[name] = total[name] + found if name in total else found
        return total
