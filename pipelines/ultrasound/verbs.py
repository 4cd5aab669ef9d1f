"""Verb that only this task has. Imports no torch."""

import argparse

from vision_core.commands.parser import OwnVerb, path


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=path, required=True, metavar="SCREEN", help="bundle of a screen, a folder")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


OWN = (
    OwnVerb(
        name="calibrate",
        text="Choose the gate's threshold on validation subjects; takes segment=BUNDLE or segment=FOLDER of masks.",
        module="pipelines.ultrasound.screening.verb",
        add=_calibrate,
        has_words=True,
    ),
)
