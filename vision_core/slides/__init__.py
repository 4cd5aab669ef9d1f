"""Whole slides: reading, tissue, tiles, encoders, features, and pictures of results."""
