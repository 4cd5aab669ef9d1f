"""Pretrain a classifier on images dimmed by a noise mask that a policy learns to draw.

A policy network gives every cell of a grid a Beta distribution; the sampled cells, enlarged and blurred, multiply the
image that the classifier is trained on. The classifier descends its cross-entropy; the policy learns by policy gradient
which masks keep it low. Then the classifier is fine-tuned on clean images, and the policy is thrown away (Yavuz and
Yang, "Policy Gradient-Driven Noise Mask", arXiv 2406.14568). Objectives: as released, and proper REINFORCE (ours).
"""
