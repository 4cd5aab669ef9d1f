"""Readers of detection data sets, one file a format."""
