"""Slide reader: a page for the result of one whole slide."""
