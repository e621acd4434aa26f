"""Detection of pedestrians."""

from configs.common import boxes, datasets, labels

name = "det_person"
kind = "detection"
classes = labels.PERSON
data = datasets.SCENES
head = boxes.head(size=1.6, ratios=(2.5,), octaves=(1.0, 1.26, 1.59))
loss = boxes.LOSS
metric = "coco_map"
post_processing = boxes.POST_PROCESSING
