"""Verbs that only this task has. Imports no torch."""

import argparse

from vision_core.commands.parser import OwnVerb, path


def _calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=path, required=True, metavar="SCREEN", help="bundle of a screen, a folder")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


def _convert_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file")
    parser.add_argument(
        "--to",
        choices=("nnunet", "folders"),
        required=True,
        help="nnunet: write data.root in nnU-Net's raw layout; folders: read that layout, write SUBJECT/FRAME.png",
    )
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="new or empty folder")


OWN = (
    OwnVerb(
        name="convert-data",
        text="Write data.root in nnU-Net's raw layout, split by subject; or read that layout.",
        module="vision_core.commands.data.convert_data",
        add=_convert_data,
        has_words=True,
    ),
    OwnVerb(
        name="calibrate",
        text="Choose the gate's threshold on validation subjects; takes segment=BUNDLE or segment=FOLDER of masks.",
        module="pipelines.ultrasound.screening.verb",
        add=_calibrate,
        has_words=True,
    ),
)
