"""Noise mask of Yavuz and Yang (arXiv 2406.14568): policy, mask, objectives; equations (1) to (7) follow a step."""
