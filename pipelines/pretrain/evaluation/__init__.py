"""Scores of classifiers: on labelled images, and of the models of a run."""
