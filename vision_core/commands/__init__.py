"""One file per verb of the command line; each has ``run(arguments, config_class, build) -> exit code``."""
