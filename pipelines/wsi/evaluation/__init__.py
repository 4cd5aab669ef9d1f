"""Predictions of slides and their scores."""
