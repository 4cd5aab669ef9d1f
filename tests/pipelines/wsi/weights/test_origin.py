"""Features of another origin than those of the training."""

from typing import Any

import pytest

from pipelines.wsi.weights.origin import check_slides
from vision_core.bundles.card import Card, TrainedOn
from vision_core.errors import CheckpointError
from vision_core.slides.settings import TileSettings

ENCODER = {"name": "uni", "dim": 1024, "weights": "ab", "input_px": 224, "mean": [1.0, 2.0, 3.0], "precision": "off"}
TILES = TileSettings(tile_px=256, mpp=0.5)


def card(**made: Any) -> Card:  # noqa: ANN401
    return Card(
        task="wsi",
        method="plain",
        config={},
        architecture={},
        preprocessing=made,
        classes=("a", "b"),
        trained_on=TrainedOn(description="made", synthetic=True),
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "conch"}, "another encoder than the model's: name was 'uni', here it is 'conch'"),
        ({"weights": "cd"}, "weights was 'ab', here it is 'cd'"),
        ({"input_px": 225}, "input_px was '224', here it is '225'"),
        ({"mean": [1.0, 2.0, 3.1]}, r"mean was '\[1.0, 2.0, 3.0\]'"),
        ({"channels": "bgr", "precision": "bf16"}, ""),  # the card does not say one, the other changes little
    ],
)
def test_check_slides__encoder(changes: dict[str, Any], told: str) -> None:
    made = card(encoder=ENCODER, mpp=0.5, tile_px=256)
    if not told:
        check_slides(made, ENCODER | changes, TILES)
        return
    with pytest.raises(CheckpointError, match=told):
        check_slides(made, ENCODER | changes, TILES)


@pytest.mark.parametrize(
    ("tiles", "told"),
    [
        (TileSettings(tile_px=128, mpp=0.5), "tiles of 128 px a side, the model was trained on 256"),
        (TileSettings(tile_px=256, mpp=1.0), "tiles of 1 microns per pixel, the model was trained on 0.5"),
        (TileSettings(tile_px=256, mpp=0.504), ""),
        (TileSettings(layout="level0_256", tile_px=99), ""),
        (TileSettings(layout="level0_512"), "tiles of 512 px a side, the model was trained on 256"),
    ],
)
def test_check_slides__scale_of_the_features(tiles: TileSettings, told: str) -> None:
    """A bundle of feature files keeps its own settings of tiles, which may be any."""
    made = card(encoder=ENCODER, mpp=0.5, tile_px=256)
    if not told:
        check_slides(made, ENCODER, tiles)
        return
    with pytest.raises(CheckpointError, match=told):
        check_slides(made, ENCODER, tiles)


def test_check_slides__unknown_encoder_is_refused_in_format_2_alone() -> None:
    with pytest.raises(CheckpointError, match="does not say which encoder made the features"):
        check_slides(card(mpp=0.5), ENCODER, TILES)
    check_slides(card(mpp=0.5).model_copy(update={"format": 1}), ENCODER, TILES)
