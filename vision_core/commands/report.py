"""The verb ``report``: one offline HTML file about a run, or a folder of runs."""

import argparse
from collections.abc import Callable
from typing import Any

from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.pipeline import Pipeline
from vision_core.runs.report import write_report

Build = Callable[[], Pipeline[Any]]


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Write the report into the folder that it is about."""
    say(f"Report: {write_report(arguments.run)}")
    return 0
