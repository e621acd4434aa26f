"""Segmentation of the scene, 12 classes."""

from configs.common import datasets, labels, network

name = "seg_default"
kind = "segmentation"
classes = labels.SCENE
data = datasets.SCENES
head = {"kind": "pixels", "stride": 4, "channels": network.PIXEL_CHANNELS}
loss = {"kind": "cross_entropy", "class_weights": (0.5, 1.0, 0.7, 1.5, 2.0, 2.0, 0.7, 0.5, 2.0, 2.0, 1.0, 1.5)}
metric = "miou"
