"""Encoders of tiles: networks, published ones, their weights."""
