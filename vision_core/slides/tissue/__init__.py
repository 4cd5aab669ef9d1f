"""Segmentation of the tissue on a slide."""
