"""Detection of vehicle fronts and rears."""

from configs.common.tasks.det_rear import *
