"""Six tasks on real and embedded data: the run of `benchmarks/accuracy.py`, within 100 minutes on two cores.

Step 0 in plain float, so that what quantization costs can be read off: the benchmark trains it on in float, too, for as
many iterations as steps 1 and 2. These are short and gentle: batch norms learn better than what absorbed them, and step
0 hands over fitted ranges, so that little is left to adapt. Float still learns more in as many iterations
(decision 0024).
"""

from typing import Any as _Any

from configs.common import training

from . import det_cyclist_light, det_person, det_rear, det_vehicle_sign, seg_default, seg_lane, utils

_EPOCH = 250  # iterations, a fraction of the scenes: many different ones, each seen a few times
_ADAPTING = {
    "mode": "kTrainingWithoutBN",
    "epochs": 1,
    "iterations_per_epoch": 100,
    "batch_size": 8,
    "learning_rate": 3e-4,
    "freeze_fraction": 0.3,
}

common = utils
tasks = [det_cyclist_light, det_person, det_rear, det_vehicle_sign, seg_default, seg_lane]

pipeline_test = training.PIPELINE_TEST
env = {**training.ENV, "float_precision": "bfloat16"}  # step 0 in half the time, where the processor has it
fusion_bn_patterns = training.FUSION_BN_PATTERNS

solver: list[dict[str, _Any]] = [
    {
        "mode": "kFloatTraining",
        "epochs": 5,
        "iterations_per_epoch": _EPOCH,
        "batch_size": 8,
        "learning_rate": 4e-3,
        "weight_decay": 1e-2,
        "freeze_fraction": 0.1,
    },
    _ADAPTING,
    _ADAPTING,
    {"mode": "kIntInference"},
]

int_inference_export_input_shape = {"image": "360x480", "im_hw": (1, 2)}
