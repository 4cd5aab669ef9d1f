"""Weights of slide models: bundles, cards, export, initial weights."""
