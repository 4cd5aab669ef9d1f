"""Extraction of features, and the formats of feature files."""
