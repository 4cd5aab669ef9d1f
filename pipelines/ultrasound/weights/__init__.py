"""Bundles of screens and segmenters, what they start from, their export."""
