"""Mathematics of MarvelOVD, one file per idea: pure functions of tensors."""
