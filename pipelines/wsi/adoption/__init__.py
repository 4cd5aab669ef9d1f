"""Features that CLAM or TRIDENT made: joined with their lists, completed, checked."""
