"""A verb that the toy task has alone."""

import argparse


def run(arguments: argparse.Namespace, config_class: object, build: object) -> int:
    """The count that was asked for."""
    return int(arguments.count)
