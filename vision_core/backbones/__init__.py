"""Backbones of classifiers and detectors: networks, settings, bundles."""
