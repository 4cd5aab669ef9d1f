"""The noise mask: a policy that learns what to hide, and its objectives."""
