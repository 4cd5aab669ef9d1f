"""Readers of slide files. Other packages import ``slide`` and ``listing`` alone."""
