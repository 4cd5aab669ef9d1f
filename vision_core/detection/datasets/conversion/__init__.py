"""Conversion of labelled data sets between layouts, and back without loss."""
