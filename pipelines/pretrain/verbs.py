"""Verb that only this task has. Imports no torch."""

import argparse

from vision_core.commands.parser import OwnVerb, path


def _export_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=path, required=True, metavar="BUNDLE", help="bundle: folder or zip")
    parser.add_argument("--out", type=path, required=True, metavar="FILE", help="a .pth, .pt or .safetensors file")
    parser.add_argument(
        "--style",
        choices=("torchvision", "radimagenet"),
        default="torchvision",
        help="names of the tensors: torchvision's, or those of RadImageNet's PyTorch files",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file in --out")


OWN = (
    OwnVerb(
        name="export-weights",
        text="Write the weights of a bundle as a state dict for other programs.",
        module="pipelines.pretrain.weights.export_state_dict",
        add=_export_weights,
    ),
)
