"""Ultrasound reader: a page for the frames of one file, screened and segmented."""
