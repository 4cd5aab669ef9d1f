"""A run on disk: folder, record, repeats, report, logged metrics, planned runs."""
