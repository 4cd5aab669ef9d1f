"""The verb ``demo-data``: the demo's data set in a folder."""

import argparse
from pathlib import Path

from vision_core.config.schema import Config
from vision_core.console import command_line, say
from vision_core.errors import UsageError, one_line
from vision_core.pipeline import Build


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Write the data set into a new folder."""
    folder: Path = arguments.out
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; give a folder.")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; give a new folder.")
    say(build().demo_data(folder))
    task = config_class.task
    start = ["python", "-m", f"pipelines.{task}", "train", "--config", f"configs/{task}/demo.yaml"]
    say(f"Written to {one_line(str(folder))}. Train on it:")
    say(f"  {command_line([*start, f'data.root={folder}'])}")
    return 0
