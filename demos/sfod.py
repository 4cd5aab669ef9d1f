"""Demo page: tree crowns by night, found by the source model and by the adapted one. ``python -m demos.sfod``."""

from pathlib import Path
from typing import TYPE_CHECKING

from vision_core.environment import enter

if TYPE_CHECKING:
    from apps.ui import Page

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


def page() -> "Page":
    """The detection viewer with the shipped bundles, and tiles of real aerial images to try."""
    from apps.detection_viewer.app import Example, ModelPair, build
    from pipelines.sfod.demo.shifts import night
    from pipelines.sfod.predict import SfodPredictor
    from vision_core.assets import tree_crowns, tree_crowns_origin
    from vision_core.images.reading import read_image

    pair = ModelPair(
        name="Tree crowns, day to night",
        source=SfodPredictor.from_checkpoint(CHECKPOINTS / "sfod-source"),
        adapted=SfodPredictor.from_checkpoint(CHECKPOINTS / "sfod-night"),
    )
    yellowstone, florida = (read_image(tree_crowns()[site].image_path) for site in ("yell_small", "osbs"))
    tiles = {"Yellowstone": yellowstone[700:956, 900:1156], "Florida": florida[:256, :256]}
    tiles |= {f"{place}, rendered as by night": night(tile, 0) for place, tile in tiles.items()}
    origin = tree_crowns_origin().line()
    return build([pair], [Example(name=name, image=tile, origin=origin) for name, tile in tiles.items()])


if __name__ == "__main__":
    enter()
    from apps.serving import main

    raise SystemExit(main(page, "Detections before and after adaptation."))
