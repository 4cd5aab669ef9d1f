"""Mask explorer: masks that the policy of a pretraining run draws over an image, and class scores under them."""
