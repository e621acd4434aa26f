"""Solver, environment and batch norm patterns: four steps whose defaults fit a night on two cores."""

# Index = step. Epochs run over the training scenes; an iteration serves all tasks.
SOLVER = [
    {
        "mode": "kTrainingWithBN",
        "epochs": 14,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "warmup_fraction": 0.03,
        "weight_decay": 1e-4,
        "freeze_fraction": 0.3,
    },
    {
        "mode": "kTrainingWithoutBN",
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "freeze_fraction": 0.3,
    },
    {
        "mode": "kTrainingWithoutBN",
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "freeze_fraction": 0.3,
    },
    {"mode": "kIntInference"},
]
PIPELINE_TEST = {"epochs": 1, "iterations_per_epoch": 4, "batch_size": 2, "pictures": 8}
ENV = {"seed": 1, "log_every": 10, "float_precision": "float32"}

# Regular expressions on the dotted names of batch norms, from the name's start.
# Step 1 absorbs what the tasks share, step 2 the heads.
FUSION_BN_PATTERNS = {1: [r"backbone\.", r"neck\."], 2: [r"(?!backbone\.|neck\.)"]}
