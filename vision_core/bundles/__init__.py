"""A trained model on disk: card, weights, archive, export, and safe reading of foreign weights."""
