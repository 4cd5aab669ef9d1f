"""The verbs that this task has beside the common ones. Imports no torch."""

import argparse

from vision_core.commands.parser import OwnVerb, path


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


def _adopt(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clam", type=path, metavar="DIR", help="CLAM's results: h5_files or pt_files, patches, CSVs")
    source.add_argument("--trident", type=path, metavar="DIR", help="TRIDENT's results: features_<encoder>, patches")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="labels.csv and features/ go there")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier adoption wrote to --out")


OWN = (
    OwnVerb(
        name="features",
        text="Make the feature files of slides: data.features of a training, made once.",
        module="pipelines.wsi.features.verb",
        add=_features,
        has_words=True,
    ),
    OwnVerb(
        name="adopt",
        text="Take over features that CLAM or TRIDENT made: data.labels and data.features of a training.",
        module="pipelines.wsi.adoption.verb",
        add=_adopt,
        has_words=True,
    ),
)
