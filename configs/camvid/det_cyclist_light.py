"""Detection of cyclists and traffic lights."""

from configs.common.tasks.det_cyclist_light import *

from . import sets

data = sets.BOXES
