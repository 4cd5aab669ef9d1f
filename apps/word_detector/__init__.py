"""Word detector: what a detector finds for words that a person types."""
