"""Object detection: the seam over detectron2, boxes, pseudo labels, dataset readers, average precision."""
