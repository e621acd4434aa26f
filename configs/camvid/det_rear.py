"""Detection of vehicle fronts and rears."""

from configs.common.tasks.det_rear import *

from . import sets

data = sets.SCENES
