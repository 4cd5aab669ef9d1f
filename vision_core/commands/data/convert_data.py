"""The verb ``convert-data``: labelled data in the layout of another tool, or back."""

import argparse
from pathlib import Path

from vision_core.config import loading as configs
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.errors import UsageError, one_line
from vision_core.pipeline import Build


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Convert ``data.root`` into a new folder.

    Raises:
        UsageError: The folder holds something, or the layout cannot hold all.
        DataError: The data cannot be used, or does not fit the layout.
    """
    folder: Path = arguments.out
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--out '{folder}' is a file, or not empty. Give a new folder.")
    config = configs.load(config_class, arguments.config, arguments.words)
    lossy, links = getattr(arguments, "lossy", False), getattr(arguments, "images", "copy") == "link"
    for line in build().convert_data(config, arguments.to, folder, lossy=lossy, links=links):
        say(one_line(line))
    say(one_line(f"Written to {folder}."))
    return 0
