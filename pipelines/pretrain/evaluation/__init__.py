"""Scores of classifiers and of whole runs."""
