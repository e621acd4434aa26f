"""People on two wheels: sets label rider and vehicle apart, the project a cyclist as one.

A rider and the bicycle under it become one box. A rider of a motorcycle is no cyclist, yet looks like one: ignored.
"""

from collections.abc import Sequence

from train.data.convert.labels import CYCLIST_BOX, Labels

Corners = tuple[float, float, float, float]
LEAST_OVERLAP = 0.1  # of the smaller box, between a rider and what it rides


def add_riders(
    labels: Labels, riders: Sequence[Corners], bicycles: Sequence[Corners], motorcycles: Sequence[Corners]
) -> None:
    """Notes a box of a cyclist for every rider."""
    for rider in riders:
        candidates = [(overlap(rider, box), box, False) for box in bicycles]
        candidates += [(overlap(rider, box), box, True) for box in motorcycles]
        share, ridden, motorized = max(candidates, key=lambda entry: entry[0], default=(0.0, rider, False))
        if share < LEAST_OVERLAP:
            ridden, motorized = rider, False
        labels.add_box(CYCLIST_BOX, union(rider, ridden), ignore=motorized)


def overlap(a: Corners, b: Corners) -> float:
    """What two boxes have in common, as a share of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0.0, width) * max(0.0, height) / smaller


def union(a: Corners, b: Corners) -> Corners:
    """The box around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
