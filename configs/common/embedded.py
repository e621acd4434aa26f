"""Solver and environment of the runs on embedded scenes: the tasks of a variant trained within an hour on two cores.

Step 0 in plain float, so that what quantization costs can be read off: it is the float model, step 2 the quantized one.
"""

from . import training

ENV = {**training.ENV, "float_precision": "bfloat16"}  # step 0 in half the time, where the processor has it

SOLVER = [
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
