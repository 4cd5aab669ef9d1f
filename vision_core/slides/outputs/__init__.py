"""Outputs of a result: heatmaps, top tiles, tiles for QuPath."""
