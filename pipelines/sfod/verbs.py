"""Verbs that only this task has. Imports no torch."""

import argparse

from vision_core.commands.parser import OwnVerb, path, positive


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=path, metavar="BEFORE", help="bundle of the detector that was there first")
    parser.add_argument("after", type=path, metavar="AFTER", help="bundle of the one adapted from it")
    parser.add_argument("words", nargs="*", metavar="key=value", help="a labelled list: data.root=… data.eval_split=…")
    parser.add_argument("--input", type=path, metavar="FOLDER", help="images without labels")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="new or empty folder: page and record")
    parser.add_argument(
        "--suggest",
        type=positive,
        metavar="N",
        help="also name images to label: N that differ most, and N at random",
    )
    parser.add_argument(
        "--labels", type=path, metavar="FILE", help="with --input: these images with boxes, as COCO, for a fair score"
    )
    parser.add_argument(
        "--suggested",
        type=path,
        metavar="DIR",
        help="folder of the comparison that named them (default: where FILE is)",
    )
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")


def _convert_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=path, metavar="FILE", help="YAML file")
    parser.add_argument("--to", choices=("coco", "voc", "yolo"), required=True, help="layout to write")
    parser.add_argument("--out", type=path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument(
        "--lossy", action="store_true", help="write what the layout cannot hold into conversion.json, for the way back"
    )
    parser.add_argument(
        "--images",
        choices=("copy", "link"),
        default="copy",
        help="link: hard links, which take no space; a change of one image is one of both (default: copy)",
    )


OWN = (
    OwnVerb(
        name="compare",
        text="Compare two bundles on a folder of images: did adaptation help? With labels or without.",
        module="pipelines.sfod.verdict.verb",
        add=_compare,
    ),
    OwnVerb(
        name="convert-data",
        text="Write the labelled lists data.split and data.eval_split as COCO, VOC or YOLO, without loss.",
        module="vision_core.commands.data.convert_data",
        add=_convert_data,
        has_words=True,
    ),
)
