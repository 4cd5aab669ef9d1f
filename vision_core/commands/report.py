"""The verb ``report``: one offline HTML file about a run or a folder of runs."""

import argparse

from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.pipeline import Build
from vision_core.runs.report import write_report


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Write the report into the folder of the runs."""
    say(f"Report: {write_report(arguments.run, build().curve_names)}")
    return 0
