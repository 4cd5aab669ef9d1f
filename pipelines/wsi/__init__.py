"""Classify whole slides from the features of their tiles, with multiple-instance learning.

A slide is a bag of tile features with one label. Three networks turn a bag into a prediction: ABMIL (Ilse et al.,
ICML 2018), DSMIL (Li et al., CVPR 2021) and TransMIL (Shao et al., NeurIPS 2021). MHIM-MIL (Tang et al., ICCV 2023)
trains each of them on hard tiles: a teacher, the moving average of the student, scores every tile, and the student
sees the bag without those that the teacher finds most salient. Its second version (Tang et al., IJCV 2025) scores by
class and recycles the tiles that are left out into a few tokens. At inference both are the plain network.
"""
