"""Scores of a run: means by convention, rows of a list, pictures."""
