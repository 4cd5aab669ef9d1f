"""Pictures for the demo's page, of no list of the demo's data, with words to try on them."""

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ovd.demo.demo_data import SIDE_PX
from pipelines.ovd.demo.shapes import draw_scene
from vision_core.images.drawing import write_png
from vision_core.randomness import key

_ORIGIN = "Scenes drawn by this program for this page."
_SHOWN = (  # number of the scene, name, words, words that are not wanted, why it is offered
    (18, "Learned", "disc, ring", "", "Both words were learned with boxes."),
    (15, "By name alone", "wedge, diamond", "", "No box of a wedge was ever shown to it."),
    (3, "Strange words", "round disc, giraffe", "", "It was trained on neither of these words."),
    (11, "Where it errs", "wedge, star", "bar", "It calls the star a wedge: it has learned both by name alone."),
)


def make_examples(folder: Path) -> list[dict[str, Any]]:
    """Draw the pictures; returns the fields of each example."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[dict[str, Any]] = []
    for number, name, words, not_wanted, why in _SHOWN:
        path = folder / f"scene-{number}.png"
        write_png(path, draw_scene(SIDE_PX, np.random.default_rng(key("page", number))).picture)
        made.append(
            {"name": name, "path": path, "origin": _ORIGIN, "why": why, "words": words, "not_wanted": not_wanted}
        )
    return made
