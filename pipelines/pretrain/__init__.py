"""Pretraining of classifiers under noise masks that a policy learns to draw.

A policy network gives every cell of a grid a Beta distribution. The sampled cells, enlarged and blurred, are the mask
by which the training image is multiplied. The classifier minimises its cross-entropy; the policy learns by policy
gradient which masks keep it low. Then the classifier is fine-tuned on clean images, and the policy is discarded (Yavuz
and Yang, "Policy Gradient-Driven Noise Mask", arXiv 2406.14568). Objectives: as released, and REINFORCE (ours).
"""
