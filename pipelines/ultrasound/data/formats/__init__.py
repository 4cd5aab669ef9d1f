"""Layouts of frames with masks of observers, one a file."""
