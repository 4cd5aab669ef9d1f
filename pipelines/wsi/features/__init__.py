"""From a slide to its bag of features."""
