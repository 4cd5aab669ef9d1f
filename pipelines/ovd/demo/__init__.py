"""Demo: drawn scenes, and pseudo-labels made on the spot."""
