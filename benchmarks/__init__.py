"""One script per figure that is claimed; peers are measured in the same run."""
