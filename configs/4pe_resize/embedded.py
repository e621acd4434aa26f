"""The run of `benchmarks/embedded.py`: the network and tasks of multitask.py, trained within an hour on two cores.

Step 0 in plain float, so that what quantization costs can be read off: it is the float model, step 2 the quantized one.
"""

from configs.common import training

from . import small_crops
from .multitask import fusion_bn_patterns, int_inference_export_input_shape, pipeline_test, tasks

__all__ = ["common", "fusion_bn_patterns", "int_inference_export_input_shape", "pipeline_test", "tasks"]

common = small_crops
env = {**training.ENV, "float_precision": "bfloat16"}  # step 0 in half the time

solver = [
    {
        "mode": "kFloatTraining",
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "warmup_fraction": 0.05,
        "freeze_fraction": 0.3,
    },
    {
        "mode": "kTrainingWithoutBN",
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "freeze_fraction": 0.3,
    },
    {
        "mode": "kTrainingWithoutBN",
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "freeze_fraction": 0.3,
    },
    {"mode": "kIntInference"},
]
