"""Data sets of detection, one file a format."""
