"""The verb ``report``: one offline HTML file about a run, or a folder of runs."""

import argparse
from collections.abc import Callable
from typing import Any

from vision_core.config import Config
from vision_core.pipeline import Pipeline
from vision_core.report import write_report
from vision_core.runlog import say

Build = Callable[[], Pipeline[Any]]


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Write the report into the folder that it is about."""
    say(f"Report: {write_report(arguments.run)}")
    return 0
