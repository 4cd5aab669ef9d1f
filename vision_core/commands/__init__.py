"""Verbs of the command line, one file each, with ``run(arguments, config_class, build) -> exit code``."""
