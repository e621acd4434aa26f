"""Data that works without a download: the embedded scenes. Seeds of training and validation never meet.

A data set of one's own goes beside or in place of them: {"kind": "folder", "path": "../my_data/train"}.
"""

from typing import Any

SCENES: dict[str, Any] = {
    "train": [{"kind": "scenes", "seed": 1_000_000, "count": 2400}],
    "val": [{"kind": "scenes", "seed": 2_000_000, "count": 60}],
}
AUGMENTATION = {"flip_probability": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
