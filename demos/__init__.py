"""An app with demo data and a small shipped checkpoint, offline, on a CPU."""
