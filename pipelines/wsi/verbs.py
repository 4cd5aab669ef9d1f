"""Verbs of this task beside the common ones; imports no torch."""

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
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for features, ledger and tables")
    parser.add_argument("--resume", action="store_true", help="the default: skip finished slides")
    parser.add_argument("--overwrite", action="store_true", help="replace features of other settings in --out")
    parser.add_argument("--strict", action="store_true", help="stop at the first slide that fails")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


def _adopt(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clam", type=path, metavar="DIR", help="CLAM's results: h5_files or pt_files, patches, CSVs")
    source.add_argument("--trident", type=path, metavar="DIR", help="TRIDENT's results: features_<encoder>, patches")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for labels.csv and features/")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier adoption wrote to --out")


OWN = (
    OwnVerb(
        name="features",
        text="Extract the feature files of slides once, for use as data.features.",
        module="pipelines.wsi.features.verb",
        add=_features,
        has_words=True,
    ),
    OwnVerb(
        name="adopt",
        text="Adopt features of CLAM or TRIDENT, for use as data.labels and data.features.",
        module="pipelines.wsi.adoption.verb",
        add=_adopt,
        has_words=True,
    ),
)
