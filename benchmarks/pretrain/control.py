"""How far the identity of the file gets on the small set of real images: a control without any network."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.pretrain.demo.small_real import HELD_OUT_FOLDER, PIECES
from vision_core.images.reading import read_image

_BINS = 16
Row = dict[str, str]


def identity_scores(folder: Path) -> dict[str, float]:
    """Score by the file alone: accuracies in percent, of pretraining (``seen_``) and held-out (``held_out_``).

    ``file``: the file is named from an image's colours; ``concept``: the class is; ``guess``: the file is known and one
    of its classes is guessed.
    """
    with (folder / PIECES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    held_out = [row for row in rows if row["file"].startswith(f"{HELD_OUT_FOLDER}/")]
    seen = [row for row in rows if not row["file"].startswith(f"{HELD_OUT_FOLDER}/")]
    scores: dict[str, float] = {}
    for name, part in (("seen", seen), ("held_out", held_out)):
        train, test = ([row for row in part if row["part"] == which] for which in ("train", "test"))
        known, asked = (np.stack([colours(read_image(folder / row["file"])) for row in each]) for each in (train, test))
        for key, column in (("file", "source"), ("concept", "concept")):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            model.fit(known, [row[column] for row in train])
            scores[f"{name}_{key}"] = 100 * float(model.score(asked, [row[column] for row in test]))
        scores[f"{name}_guess"] = 100 * guess(test)
    return scores


def colours(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute mean, spread and histogram of each channel of an image ``(H, W, 3)``: ``(54,)``."""
    values = image.reshape(-1, 3)
    shares = [np.histogram(values[:, channel], _BINS, (0, 256))[0] / len(values) for channel in range(3)]
    return np.concatenate([values.mean(axis=0), values.std(axis=0), *shares])


def guess(rows: Sequence[Row]) -> float:
    """Compute the expected accuracy of one who knows the file and guesses one of its classes."""
    classes = {row["source"]: {each["concept"] for each in rows if each["source"] == row["source"]} for row in rows}
    return float(np.mean([1 / len(classes[row["source"]]) for row in rows]))
