"""Screening of frames: the classifier, the gate before the segmenter, the choice of its threshold."""
