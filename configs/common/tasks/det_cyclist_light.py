"""Detection of cyclists and traffic lights."""

from configs.common import boxes, datasets, labels

name = "det_cyclist_light"
kind = "detection"
classes = labels.CYCLIST_LIGHT
data = datasets.SCENES
head = boxes.head(size=1.6, ratios=(2.0,), octaves=(1.0, 1.26, 1.59))
loss = boxes.LOSS
metric = "coco_map"
post_processing = boxes.POST_PROCESSING
