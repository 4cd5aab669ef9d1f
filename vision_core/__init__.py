"""What two or more pipelines need: configuration, training loop, checkpoints, bundles, detectors, batches."""
