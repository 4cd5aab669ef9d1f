"""Where a detector's weights come from and go to."""
