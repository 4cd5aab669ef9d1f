"""Frames with the masks of observers: layouts, subjects, label sampling, views."""
