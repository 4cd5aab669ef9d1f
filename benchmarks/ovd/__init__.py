"""Measurements of ``pipelines.ovd``."""
