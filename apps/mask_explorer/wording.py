"""Masks and scores in words, as a table of the page, and as CSV and JSON."""

import html
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.mask_explorer.explorer import Exploration
from vision_core.csv_tables import Cell, to_csv
from vision_core.results import RESEARCH_NOTICE, ClassScores

UNCALLED = "Nothing is called, since the model has only seen made images."
_MOST_CLASSES = 8  # rows of the page's table; the files list all
_TOP = 3  # highest classes of each column that it shows
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")


def describe(found: Exploration) -> list[str]:
    """Describe the prediction, then that under masks, then the hidden share of contrast; a sentence or more each."""
    return [*_called(found), f"{describe_mask(found, 0)} {_spread(found)}"]


def describe_mask(found: Exploration, which: int) -> str:
    """Describe in a sentence how much a mask hides, and where most."""
    hidden = found.hidden(which)
    subject = mask_title(found, which)
    low, high = _percent(hidden.min()), _percent(hidden.max())
    if low == high:
        return f"{subject} hides {low} % of the contrast everywhere."
    return f"{subject} hides {low} to {high} % of the contrast, most at the {region_name(hidden)}."


def mask_title(found: Exploration, which: int) -> str:
    """Name a mask at the start of a sentence."""
    return "The mean mask" if which == 0 else f"The mask of {found.mask_names()[which]}"


def region_name(hidden: NDArray[np.float32]) -> str:
    """Name the ninth of the image that is hidden most."""
    parts = [[part.mean() for part in np.array_split(row, 3, axis=1)] for row in np.array_split(hidden, 3, axis=0)]
    row, column = divmod(int(np.argmax(parts)), 3)
    return "centre" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]}"


def numbers_table(found: Exploration) -> str:
    """Format the highest scores as an HTML table with a column per mask; empty without scores."""
    if not found.scores:
        return ""
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("class", "clean image", *found.mask_names()))
    rows = (
        f'<tr><th scope="row">{html.escape(_title(found, label))}</th>'
        + "".join(f"<td>{scores.scores[label]:.2f}</td>" for scores in found.scores)
        + "</tr>"
        for label in _shown_classes(found)
    )
    caption = "Scores of the classes with and without masks"
    left = len(found.scores[0].classes) - len(_shown_classes(found))
    caption += f"; the files list {left} more classes" if left else ""
    return (
        f'<table class="numbers"><caption>{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def result_csv(of: Mapping[str, str], found: Exploration) -> str:
    """Format all scores as a CSV, a row per mask; formulas of a spreadsheet are quoted.

    Args:
        of: What the result is of, by column.
        found: Masks and scores.
    """
    classes = found.scores[0].classes if found.scores else ()
    rows: list[list[Cell]] = []
    for row, under in enumerate(("clean image", *found.mask_names())):
        hidden = found.hidden(row - 1) if row else np.zeros(1, np.float32)
        shares: list[Cell] = [round(float(each), 4) for each in (hidden.mean(), hidden.min(), hidden.max())]
        scores = found.scores[row] if found.scores else None
        called = scores.category if scores else UNCALLED
        values: list[Cell] = [round(float(score), 6) for score in scores.scores] if scores else []
        rows.append([*of.values(), under, *shares, called, *values, found.model, RESEARCH_NOTICE])
    header = [*of, "under", "hidden_mean", "hidden_min", "hidden_max", "called"]
    return to_csv([*header, *(f"score {each}" for each in classes), "model", "notice"], rows)


def result_record(of: Mapping[str, str], found: Exploration, remarks: tuple[str, ...]) -> dict[str, Any]:
    """Return masks and scores as a record for JSON, that begins with what the result is of."""
    masks = [
        {
            "mask": mask,
            "hidden_mean": round(float(found.hidden(which).mean()), 4),
            "hidden_min": round(float(found.hidden(which).min()), 4),
            "hidden_max": round(float(found.hidden(which).max()), 4),
            "scores": _scores_record(found.scores[which + 1]) if found.scores else UNCALLED,
        }
        for which, mask in enumerate(found.mask_names())
    ]
    return {
        "notice": RESEARCH_NOTICE,
        **of,
        "height": found.image_size[0],
        "width": found.image_size[1],
        "seen_px": found.view.shape[0],
        "clean": _scores_record(found.scores[0]) if found.scores else UNCALLED,
        "masks": masks,
        "remarks": list(remarks),
        "model": found.model,
    }


def _called(found: Exploration) -> list[str]:
    if not found.scores:
        return [UNCALLED]
    clean, mean, *samples = (_call(scores) for scores in found.scores)
    counted = Counter(samples)
    drawn = ", ".join(f"{call} ({_times(count)})" for call, count in counted.most_common())
    under = f"still {mean}" if mean == clean else mean
    return [
        f"{clean[:1].upper()}{clean[1:]} as it is.",
        f"Under the mean mask {under}. Under the {len(samples)} sampled masks {drawn}.",
    ]


def _call(scores: ClassScores) -> str:
    called = scores.called()
    return (
        "called " + " and ".join(f"'{scores.titles.get(each, each)}'" for each in called)
        if called
        else "called none of the classes"
    )


def _title(found: Exploration, label: int) -> str:
    name = found.scores[0].classes[label]
    return found.scores[0].titles.get(name, name)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _spread(found: Exploration) -> str:
    samples = 1 - found.masks[1:]
    return f"The sampled masks hide {_percent(samples.min())} to {_percent(samples.max())} %."


def _percent(share: np.floating) -> int:
    return round(100 * float(share))


def _shown_classes(found: Exploration) -> list[int]:
    clean = found.scores[0].scores
    top = {int(label) for scores in found.scores for label in np.argsort(-scores.scores, kind="stable")[:_TOP]}
    return sorted(top, key=lambda label: (-clean[label], label))[:_MOST_CLASSES]


def _scores_record(scores: ClassScores) -> dict[str, Any]:
    return {
        "called": list(scores.called()),
        "scores": {name: round(score, 6) for name, score in scores.ranked()},
    }
