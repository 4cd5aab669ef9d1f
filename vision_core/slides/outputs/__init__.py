"""What a person opens afterwards: heatmaps, TIFF, top tiles, QuPath."""
