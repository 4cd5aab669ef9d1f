"""Demo images: slices and blocks of real medical files."""
