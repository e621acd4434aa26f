"""Segmentation of lane markings, 4 classes."""

from configs.common.tasks.seg_lane import *

from . import sets

data = sets.LANES
