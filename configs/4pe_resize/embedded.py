"""The run of `benchmarks/embedded.py`: the network and tasks of multitask.py, trained within an hour on two cores."""

from configs.common import embedded

from . import small_crops
from .multitask import fusion_bn_patterns, int_inference_export_input_shape, pipeline_test, tasks

__all__ = ["common", "fusion_bn_patterns", "int_inference_export_input_shape", "pipeline_test", "tasks"]

common = small_crops
env = embedded.ENV
solver = embedded.SOLVER
