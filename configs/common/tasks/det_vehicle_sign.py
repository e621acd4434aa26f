"""Detection of whole vehicles and traffic signs."""

from configs.common import boxes, datasets, labels

name = "det_vehicle_sign"
kind = "detection"
classes = labels.VEHICLE_SIGN
data = datasets.SCENES
head = boxes.head(size=1.8, ratios=(0.85,), octaves=(1.0, 1.26, 1.59))
loss = boxes.LOSS
metric = "coco_map"
post_processing = boxes.POST_PROCESSING
