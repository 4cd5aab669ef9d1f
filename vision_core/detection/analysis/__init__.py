"""What detections say beyond a score: what changed, errors by cause, curves, files of results for other tools."""
