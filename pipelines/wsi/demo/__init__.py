"""Synthesis of the demo slides from the pixels of one scanned region."""
