"""What the crop and the resize configs share: classes, data, network, boxes, training."""
