"""The verb ``adopt`` on the command line. Imports no torch."""

import argparse

from vision_core.commands.main import OwnVerb, path


def _add(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--clam", type=path, metavar="DIR", help="CLAM's results: h5_files or pt_files, patches, CSVs")
    source.add_argument("--trident", type=path, metavar="DIR", help="TRIDENT's results: features_<encoder>, patches")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="labels.csv and features/ go there")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier adoption wrote to --out")


ADOPT = OwnVerb(
    name="adopt",
    text="Take over features that CLAM or TRIDENT made: data.labels and data.features of a training.",
    module="pipelines.wsi.adoption.verb",
    add=_add,
    has_words=True,
)
