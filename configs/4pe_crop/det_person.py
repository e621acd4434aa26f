"""Detection of pedestrians."""

from configs.common.tasks.det_person import *
