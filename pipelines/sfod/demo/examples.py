"""Tiles that the demo page offers: of the half of the target image that nothing was adapted to."""

from pathlib import Path

from pipelines.sfod.demo.demo_data import Tile, demo_splits
from vision_core.images.drawing import write_png

_HELD_OUT = "The tile with the most labelled crowns of the half of the image that the model did not adapt to"
_SHOWN = {  # list of tiles; its name for people, and why it is shown
    "fog_b": ("In fog", f"{_HELD_OUT}; the fog is rendered."),
    "night_b": ("By night", f"{_HELD_OUT}; the night is rendered."),
    "clean_b": ("Clear day", "The same place as it is: clear days are what the source model was trained for."),
    "osbs_b": ("Florida", "Another site, which neither model was made for: no gain is expected."),
}


def make_examples(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write one tile of each shift, of the image without one, and of another site, as PNG.

    Of each list it is the tile with the most labelled crowns, so that no model has a say in what is shown.

    Returns:
        By name: the file, and why it is shown.

    Raises:
        MissingDependencyError: The package that carries the images is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tiles = {split: tiles for split, tiles in demo_splits(256, ["target"]) if split in _SHOWN}
    paths = {}
    for split, (name, why) in _SHOWN.items():
        tile = max(tiles[split], key=_num_crowns)
        write_png(folder / f"{split}.png", tile.window.crop(tile.scene.image))
        paths[name] = folder / f"{split}.png", why
    return paths


def _num_crowns(tile: Tile) -> int:
    return sum(not each.is_difficult for each in tile.annotation().objects)
