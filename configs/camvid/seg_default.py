"""Segmentation of the scene: the 11 classes that CamVid tells apart. It paints lane markings as road."""

from configs.common import labels, network

from . import sets

name = "seg_default"
kind = "segmentation"
classes = labels.SCENE[:11]
without = ("lane marking",)
data = sets.MASKS
head = {"kind": "pixels", "stride": 4, "channels": network.PIXEL_CHANNELS}
loss = {
    "kind": "cross_entropy",
    "class_weights": (0.6, 1.0, 0.6, 1.6, 1.8, 1.8, 0.8, 0.6, 1.8, 2.0, 1.0),
    "weight": 2.0,
}
metric = "miou"
