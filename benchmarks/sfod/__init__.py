"""Measurements of ``pipelines.sfod`` and of detection: studies, steps, validation."""
