"""Ultrasound: screen the frames for the organ, then segment it.

A classifier scores every frame; only frames above a threshold reach the segmenter, every other has an empty mask
(Chalcroft et al., "Development and evaluation of intraoperative ultrasound segmentation with negative image frames and
multiple observer labels", ASMUS 2021, arXiv 2108.04114).
"""
