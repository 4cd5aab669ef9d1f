"""Did it help? Numbers that need no labels, compared between a detector and the one it was adapted from.

Start with ``numbers``. Every number is made of sums over images, so that a bootstrap draws images and not passes:
``probing`` passes an image through a detector and keeps the sums, ``agreement`` matches two sets of boxes,
``truth_map`` says how often a box like this is right, ``prototypes`` compares features with those of the source.
"""
