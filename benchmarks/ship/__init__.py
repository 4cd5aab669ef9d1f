"""What makes the bundles and pictures that are shipped with the demos."""
