"""multitask.py trained for longer: the run of `benchmarks/accuracy.py --night`."""

from . import multitask
from .multitask import common, env, fusion_bn_patterns, int_inference_export_input_shape, pipeline_test, tasks

__all__ = ["common", "env", "fusion_bn_patterns", "int_inference_export_input_shape", "pipeline_test", "tasks"]

_epochs = (36, 2, 2)
solver = [
    *({**entry, "epochs": count} for entry, count in zip(multitask.solver, _epochs, strict=False)),
    multitask.solver[3],
]
