"""Verbs that only this task has. Imports no torch."""

import argparse

from vision_core.commands.parser import OwnVerb, path


def _pseudo_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="folder of scores and pseudo-labels")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


def _score_lvis(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file")
    parser.add_argument(
        "--predictions", type=path, required=True, metavar="FILE", help="results as COCO defines them, of any tool"
    )
    parser.add_argument("--out", type=path, metavar="FILE", help="write the scores there, as JSON")


OWN = (
    OwnVerb(
        name="pseudo-label",
        text="Score class-agnostic proposals by the novel names, and write pseudo_labels.json.",
        module="pipelines.ovd.pseudo_labels.verb",
        add=_pseudo_label,
        has_words=True,
    ),
    OwnVerb(
        name="score-lvis",
        text="Score predictions of any tool on data.eval_split as LVIS does, by boxes and, where there are any, masks.",
        module="pipelines.ovd.evaluation.verb",
        add=_score_lvis,
        has_words=True,
    ),
)
