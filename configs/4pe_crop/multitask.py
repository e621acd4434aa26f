"""The multi-task run of the crop variant: which tasks, and how they are trained together.

One task alone is one line: tasks = [seg_lane]. Without a detection task, delete im_hw below.
"""

from configs.common import training

from . import det_cyclist_light, det_person, det_rear, det_vehicle_sign, seg_lane, utils

common = utils
tasks = [det_cyclist_light, det_person, det_rear, det_vehicle_sign, seg_lane]

solver = training.SOLVER  # index = step 0 to 3
pipeline_test = training.PIPELINE_TEST
env = training.ENV
fusion_bn_patterns = training.FUSION_BN_PATTERNS

# "image": one of the `geometries` of utils.py, by its name or by the input shape that it gives, (1, H, W, 3)
int_inference_export_input_shape = {"image": "720x1280", "im_hw": (1, 2)}
