"""Layouts of labelled images, one file a layout."""
