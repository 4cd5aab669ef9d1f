"""Candidates of novel classes, made offline and once: proposals, their scores, selection, and the file of labels."""
