"""Step 0 of multitask.py trained on in float, for as many iterations as its steps 1 and 2: what int8 is compared with.

Begin it with step 0's weights: train.train --step 0 --init RUN/with-bn-last-0000.params.
"""

from . import multitask
from .multitask import common, env, fusion_bn_patterns, int_inference_export_input_shape, pipeline_test, tasks

__all__ = ["common", "env", "fusion_bn_patterns", "int_inference_export_input_shape", "pipeline_test", "tasks"]

_further = {
    "mode": "kFloatTraining",
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 5e-4,
    "freeze_fraction": 0.3,
}
solver = [_further, *multitask.solver[1:]]
