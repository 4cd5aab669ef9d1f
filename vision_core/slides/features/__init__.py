"""Extraction of features, and every file of features that is read or written."""
