"""Metrics of classifiers, calibration, scope, rows of evaluation results."""
