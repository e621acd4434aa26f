"""Detection of pedestrians."""

from configs.common.tasks.det_person import *

from . import sets

data = sets.BOXES
