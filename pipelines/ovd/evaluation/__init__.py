"""Scores of detectors of names, and of predictions of other tools."""
