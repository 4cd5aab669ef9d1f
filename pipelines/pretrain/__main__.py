"""``python -m pipelines.pretrain``: the verbs of this task."""

import argparse
import sys
from pathlib import Path

from vision_core.environment import enter


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    enter()
    from pipelines.pretrain.config import PretrainConfig
    from vision_core.commands.main import OwnVerb, run

    def build() -> object:
        from pipelines.pretrain.pipeline import PretrainPipeline

        return PretrainPipeline()

    export_weights = OwnVerb(
        name="export-weights",
        text="Write the weights of a bundle as a state dict for other programs.",
        module="pipelines.pretrain.weights.export_state_dict",
        add=_export_weights,
    )
    return run(PretrainConfig, build, argv, own=[export_weights])


def _export_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="BUNDLE", help="bundle: folder or zip")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".pth, .pt or .safetensors")
    parser.add_argument(
        "--style",
        choices=("torchvision", "radimagenet"),
        default="torchvision",
        help="names of the entries: torchvision's, or those of RadImageNet's PyTorch files",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file in --out")


if __name__ == "__main__":
    sys.exit(main())
