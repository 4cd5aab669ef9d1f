"""What a person opens on their own files."""
