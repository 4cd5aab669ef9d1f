"""The verb ``verify``: integrity of a bundle, and its outputs on this machine."""

import argparse

from vision_core.bundles import bundle as bundles
from vision_core.config.schema import Config
from vision_core.console import say
from vision_core.pipeline import Build
from vision_core.training.runtime import launch


def run(arguments: argparse.Namespace, config_class: type[Config], build: Build) -> int:
    """Check hashes and numbers, and compute the golden pair again."""
    content = bundles.load(arguments.bundle, config_class.task)
    answer = build().answers(arguments.bundle, launch(arguments.device or "auto").device)
    deviation = bundles.check_golden(content, answer)
    say(f"{content.card.identity()}: hashes and numbers are sound, {len(content.tensors)} tensors.")
    say(f"Golden pair: relative deviation {deviation:.2g} (fine up to {bundles.GOLDEN_FINE:g}).")
    if deviation > bundles.GOLDEN_FINE:
        say("warning: this machine computes visibly different values; compare results before you rely on them.")
    return 0
