"""The data, which `benchmarks/accuracy.py` puts into data/: CamVid, comma10k, and embedded scenes of the same size.

A batch of 8 is 6 pictures of CamVid, 2 scenes and 1 picture of comma10k: shares are rounded, none is left out.
"""

SIZE = (360, 480)  # CamVid's

_camvid = {"kind": "folder", "path": "../../data/camvid/train", "share": 0.75}
_camvid_val = {"kind": "folder", "path": "../../data/camvid/val"}
_comma10k = {"kind": "folder", "path": "../../data/comma10k/train", "share": 0.125}
_comma10k_val = {"kind": "folder", "path": "../../data/comma10k/val"}
_scenes = {"kind": "folder", "path": "../../data/scenes/train", "share": 0.25}
_scenes_val = {"kind": "folder", "path": "../../data/scenes/val"}

MASKS = {"train": [_camvid], "val": [_camvid_val]}
BOXES = {"train": [_camvid, _scenes], "val": [_camvid_val, _scenes_val]}
LANES = {"train": [_comma10k, _scenes], "val": [_comma10k_val, _scenes_val]}
SCENES = {"train": [_scenes], "val": [_scenes_val]}
