"""Object detection: the detector (detectron2), boxes, pseudo labels, data sets, average precision."""
