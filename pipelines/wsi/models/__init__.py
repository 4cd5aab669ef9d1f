"""Aggregators of multiple instance learning and their layers."""
