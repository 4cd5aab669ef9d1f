"""The detector and its parts: the only place that knows detectron2."""
