"""Labelled images: index, reading, splits, views, preprocessing, mixing."""
