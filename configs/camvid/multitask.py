"""Six tasks on real and embedded data: the run of `benchmarks/accuracy.py`, within 100 minutes on two cores.

Step 0 learns, in float at first and quantized for its last quarter, with batch norms, which learn better than what
absorbed them. Steps 1 and 2 absorb them and hardly move a weight: training on without batch norms undoes what step 0
learned, and there is nothing to mend (decision 0024). To tell what quantization costs, the benchmark trains on in
float, too, from where step 0 begins to quantize.
"""

from typing import Any as _Any

from configs.common import training

from . import det_cyclist_light, det_person, det_rear, det_vehicle_sign, seg_default, seg_lane, utils

_EPOCH = 350  # iterations, a fraction of the scenes: many different ones, each seen a few times
_ABSORBING = {
    "mode": "kTrainingWithoutBN",
    "epochs": 1,
    "iterations_per_epoch": 60,
    "batch_size": 8,
    "learning_rate": 1e-6,
    "freeze_fraction": 1.0,
}

common = utils
tasks = [det_cyclist_light, det_person, det_rear, det_vehicle_sign, seg_default, seg_lane]

pipeline_test = training.PIPELINE_TEST
env = {**training.ENV, "float_precision": "bfloat16"}  # half the time, where the processor has it
fusion_bn_patterns = training.FUSION_BN_PATTERNS

solver: list[dict[str, _Any]] = [
    {
        "mode": "kTrainingWithBN",
        "epochs": 4,
        "iterations_per_epoch": _EPOCH,
        "batch_size": 8,
        "learning_rate": 4e-3,
        "weight_decay": 1e-2,
        "freeze_fraction": 0.1,
        "quant_delay": 0.75,
    },
    _ABSORBING,
    _ABSORBING,
    {"mode": "kIntInference"},
]

int_inference_export_input_shape = {"image": "360x480", "im_hw": (1, 2)}
