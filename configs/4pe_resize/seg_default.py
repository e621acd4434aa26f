"""Segmentation of the scene, 12 classes."""

from configs.common.tasks.seg_default import *
