"""Verbs on bundles: export, import-weights, verify."""
