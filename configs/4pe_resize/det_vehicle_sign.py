"""Detection of whole vehicles and traffic signs."""

from configs.common import boxes, datasets, labels

name = "det_vehicle_sign"
kind = "detection"
classes = labels.VEHICLE_SIGN
data = datasets.SCENES
head = boxes.head(size=2.2, ratios=(0.45, 0.75, 1.0))
loss = boxes.LOSS
metric = "coco_map"
post_processing = boxes.POST_PROCESSING
