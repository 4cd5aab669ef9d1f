"""Segmentation of images: networks, losses, postprocessing, metrics."""
