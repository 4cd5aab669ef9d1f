"""Mask explorer: what the policy of a pretraining run hides in an image, and what its classifier then says."""
