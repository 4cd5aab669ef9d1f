"""Slides, labels and splits: from a CSV to training, validation and test."""
