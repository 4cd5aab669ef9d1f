"""Measurements of ``pipelines.wsi`` and of slides: studies, steps, reading, features."""
