"""The verbs that this task has beside the common ones. Imports no torch."""

import argparse

from pipelines.wsi.adoption.adopt_options import ADOPT
from vision_core.commands.main import OwnVerb, path


def _features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file; its tissue, tiles, encoder, read count")
    parser.add_argument(
        "--input",
        type=path,
        required=True,
        metavar="PATH",
        help="a slide, a folder of slides, or a CSV that lists them",
    )
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="features, ledger and tables go there")
    parser.add_argument("--resume", action="store_true", help="the default: finished slides are left alone")
    parser.add_argument(
        "--overwrite", action="store_true", help="accept features of other settings in --out: redo them"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first bad slide")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


OWN = (
    OwnVerb(
        name="features",
        text="Make the feature files of slides: data.features of a training, made once.",
        module="pipelines.wsi.features.verb",
        add=_features,
        has_words=True,
    ),
    ADOPT,
)
