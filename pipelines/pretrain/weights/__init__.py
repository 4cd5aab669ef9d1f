"""Weights of classifiers: bundles, initial and released weights, key maps, export."""
