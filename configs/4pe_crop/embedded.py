"""The run of `benchmarks/together.py`: the network and tasks of multitask.py, trained within an hour on two cores."""

from configs.common import embedded

from . import small_crops
from .multitask import fusion_bn_patterns, pipeline_test, tasks

__all__ = ["common", "fusion_bn_patterns", "int_inference_export_input_shape", "pipeline_test", "tasks"]

common = small_crops
env = embedded.ENV
solver = embedded.SOLVER

# the window that pictures of 1080 rows are seen through, too: what is near and large is the resize variant's
int_inference_export_input_shape = {"image": "940x1824", "im_hw": (1, 2)}
