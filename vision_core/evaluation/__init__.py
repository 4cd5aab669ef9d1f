"""Scores of classifiers, their calibration, the scope of a model, rows of a table."""
