"""Aggregators of multiple instance learning and the layers they share."""
