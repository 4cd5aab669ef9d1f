"""The mathematics of papers: pure functions of tensors, one file a paper."""
