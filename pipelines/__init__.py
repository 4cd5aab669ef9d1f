"""One folder per task; each joins the core with the published methods of that task."""
