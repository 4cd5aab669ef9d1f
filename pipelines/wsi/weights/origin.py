"""Check that slides are read as those were that a bag model was trained on."""

from collections.abc import Mapping
from typing import Any

from pipelines.wsi.features.origin import differences, trained_with
from vision_core.bundles.card import UNSEALED_FORMAT, Card
from vision_core.errors import CheckpointError
from vision_core.slides.settings import TileSettings

_LAYOUT_SIDES = {"level0_512": 512, "level0_256": 256}


def check_slides(card: Card, encoder: Mapping[str, Any], tiles: TileSettings) -> None:
    """Refuse to make features of slides in another way than those that a model was trained on.

    Args:
        card: Card of the model.
        encoder: Identity of the encoder that would make them.
        tiles: Settings of the tiles that it would see.

    Raises:
        CheckpointError: They differ, or from format 2 on the card does not say how its features were made.
    """
    trained = trained_with(card.preprocessing)
    if card.format > UNSEALED_FORMAT and not trained.get("encoder"):
        raise CheckpointError(
            f"The card of {card.identity()} does not say which encoder made the features that it was trained on, so "
            "slides cannot be read for it. Give files of its features as --input; the verb adopt writes such facts "
            "beside features made elsewhere, and import-weights takes encoder.name and encoder.weights."
        )
    here: dict[str, Any] = {"encoder": encoder, "tile_px": _LAYOUT_SIDES.get(tiles.layout, tiles.tile_px)}
    if tiles.layout == "mpp":
        here["mpp"] = tiles.mpp
    told = differences(trained, here)
    if trained.get("tile_px") and trained["tile_px"] != here["tile_px"]:
        told.append(f"of tiles of {here['tile_px']:g} px a side, the model was trained on {trained['tile_px']:g}")
    if told:
        raise CheckpointError(
            f"As these slides would be read, their features are {'; '.join(told)}. Give files of features as the model "
            "was trained on as --input, or a bundle that was trained as these slides are read."
        )
