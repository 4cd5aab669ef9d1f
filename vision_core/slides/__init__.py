"""Whole slides: reading, tissue, tiles, features, and pictures of what a model saw in them."""
