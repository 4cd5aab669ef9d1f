"""Demo page: tree crowns by night, found by the source model and by the adapted one. ``python -m demos.sfod``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from apps.serving import main
from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


def page() -> "Page":
    """The detection viewer with the shipped bundles and real tiles they were not trained on."""
    from apps.detection_viewer.app import Example, ModelPair, build
    from pipelines.sfod.predict import SfodPredictor
    from pipelines.sfod.shifts import night
    from vision_core.assets import tree_crowns, tree_crowns_origin
    from vision_core.images import read_image

    pair = ModelPair(
        name="Tree crowns, day to night",
        source=SfodPredictor.from_checkpoint(CHECKPOINTS / "sfod-source"),
        adapted=SfodPredictor.from_checkpoint(CHECKPOINTS / "sfod-night"),
    )
    tiles = {site: read_image(tree_crowns()[site].image_path)[:256, :256] for site in ("yell_small", "osbs")}
    names = {"yell_small": "Yellowstone", "osbs": "Florida"}
    origin = tree_crowns_origin().line()
    examples = [Example(name=f"{names[site]}, by day", image=tile, origin=origin) for site, tile in tiles.items()]
    examples += [
        Example(name=f"{names[s]}, by rendered night", image=night(t, 0), origin=origin) for s, t in tiles.items()
    ]
    return build([pair], examples)


if __name__ == "__main__":
    enter()
    sys.exit(main(page, "Detections before and after adaptation."))
