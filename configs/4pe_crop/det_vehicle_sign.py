"""Detection of whole vehicles and traffic signs."""

from configs.common.tasks.det_vehicle_sign import *
