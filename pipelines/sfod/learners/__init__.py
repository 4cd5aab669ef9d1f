"""Learners of adaptation, one way of training a file."""
