"""Data sets with base and novel classes."""
