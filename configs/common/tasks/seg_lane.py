"""Segmentation of lane markings, 4 classes."""

from configs.common import datasets, labels, network

name = "seg_lane"
kind = "segmentation"
classes = labels.LANE
data = datasets.SCENES
head = {"kind": "pixels", "stride": 4, "channels": network.PIXEL_CHANNELS}
loss = {"kind": "cross_entropy", "class_weights": (0.4, 2.0, 2.0, 2.0)}
metric = "lines"
