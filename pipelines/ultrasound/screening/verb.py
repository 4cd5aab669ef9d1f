"""The verb ``calibrate``: the threshold of a gate, chosen on validation subjects and kept in the screen's bundle."""

import argparse
from collections.abc import Callable
from pathlib import Path

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.screening.calibration import calibrate
from pipelines.ultrasound.weights.bundles import TASK, check_kind
from vision_core.bundles.bundle import read_card
from vision_core.config import loading as configs
from vision_core.console import say
from vision_core.errors import UsageError, one_line
from vision_core.training.runtime import launch


def run(arguments: argparse.Namespace, config_class: type[UltrasoundConfig], build: Callable[[], object]) -> int:
    """Choose the threshold, write it with the whole curve into the screen's card, and print both."""
    path: Path = arguments.checkpoint
    card = read_card(path, TASK)
    check_kind(path, card, "screen")
    if not path.is_dir():
        raise UsageError(
            f"--checkpoint '{path}' is a zip, whose card cannot be changed. Unpack it and give the folder."
        )
    config = configs.of_bundle(config_class, card.config, arguments.words, f"{path}/card.json")
    for line in calibrate(config, path, launch(arguments.device or "auto").device):
        say(one_line(line))
    return 0
