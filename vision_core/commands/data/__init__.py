"""Verbs on data sets: demo-data, validate."""
