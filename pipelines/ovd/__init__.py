"""Open-vocabulary detection: a detector of what words name, trained on boxes of base classes alone.

Boxes of novel classes are never given, only their names. An image–text model scores class-agnostic proposals against
these names once, offline; training learns the surest of them as pseudo-labels. MarvelOVD (ECCV 2024, arXiv 2407.21465)
lets the detector, in its current state, choose among them at every step and weigh them. Methods: proposals, vl_plm,
marvel.
"""
