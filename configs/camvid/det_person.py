"""Detection of pedestrians."""

from configs.common import boxes, labels

from . import sets

name = "det_person"
kind = "detection"
classes = labels.PERSON
data = sets.BOXES
head = boxes.head(size=1.6, ratios=(2.5,), octaves=(1.0, 1.26, 1.59))
loss = boxes.LOSS
metric = "coco_map"
post_processing = boxes.POST_PROCESSING
