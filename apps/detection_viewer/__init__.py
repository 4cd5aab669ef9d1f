"""Detection viewer: what a detector finds in an image before and after adaptation, side by side."""
