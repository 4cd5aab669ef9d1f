"""Verbs that only this task has. Imports no torch."""

import argparse

from vision_core.commands.parser import OwnVerb, path


def _pseudo_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="folder of scores and pseudo-labels")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


OWN = (
    OwnVerb(
        name="pseudo-label",
        text="Score class-agnostic proposals by the novel names, and write pseudo_labels.json.",
        module="pipelines.ovd.pseudo_labels.verb",
        add=_pseudo_label,
        has_words=True,
    ),
)
