"""Reading, drawing and augmenting images."""
