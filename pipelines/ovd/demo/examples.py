"""Pictures for the demo's page, of no list of the demo's data, with words to try on them."""

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.ovd.demo.demo_data import PARTS, SHEET, SHEET_ORIGIN
from vision_core.detection.cut_outs import clothes_sheet, divide
from vision_core.detection.scenes import CLOTHES_SCENES, compose
from vision_core.images.drawing import write_png
from vision_core.randomness import key

_ORIGIN = f"Scenes composed by this program for this page. {SHEET_ORIGIN}"
_SHOWN = (  # number of the scene, name, words, words that are not wanted, why it is offered
    (44, "Learned", "coat, ankle boot", "", "Both words were learned with boxes."),
    (
        31,
        "By name alone",
        "bag, sneaker",
        "",
        "It was never shown a box of a bag or a sneaker. It misses a sneaker.",
    ),
    (44, "Strange words", "winter coat, giraffe", "", "It was trained on neither of these words."),
    (52, "Where it errs", "bag", "", "It calls a piece of clothing a bag: bags it has learned by name alone."),
)


def make_examples(folder: Path) -> list[dict[str, Any]]:
    """Compose the pictures, of pieces that no model was trained on; returns the fields of each example."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = divide(clothes_sheet(SHEET), PARTS)["val"]
    made: list[dict[str, Any]] = []
    for number, name, words, not_wanted, why in _SHOWN:
        path = folder / f"scene-{number}.png"
        write_png(path, compose(pool, CLOTHES_SCENES, np.random.default_rng(key("page", number))).picture)
        made.append(
            {"name": name, "path": path, "origin": _ORIGIN, "why": why, "words": words, "not_wanted": not_wanted}
        )
    return made
