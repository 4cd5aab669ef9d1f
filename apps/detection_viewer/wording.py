"""What the two models find, and what changed, in words; as CSV and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from vision_core.bundles.card import Card
from vision_core.csv_tables import Cell, to_csv
from vision_core.detection.analysis.changes import Changes, find_changes
from vision_core.detection.calibration import read_calibration
from vision_core.results import RESEARCH_NOTICE, Detections

FIRST_SCORE = 0.5


def counted(number: int, found: Detections) -> str:
    """Count objects in words, under the title of the only class."""
    name = found.titles.get(found.classes[0], "object") if len(found.classes) == 1 else "object"
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def headline(source: Detections, adapted: Detections) -> str:
    """Tell what changed, what was gained first."""
    changes = find_changes(source, adapted)
    parts = []
    if len(changes.gained):
        parts.append(f"{counted(len(changes.gained), adapted)} found that the source model missed")
    if len(changes.lost):
        parts.append(f"{counted(len(changes.lost), source)} no longer found")
    if len(changes.moved):
        parts.append(f"{counted(len(changes.moved), adapted)} moved")
    if not parts:
        return "Neither model finds anything." if not len(adapted) else "Both models find the same."
    return f"{'; '.join(parts)}."


def totals(source: Detections, adapted: Detections, score: float) -> str:
    """Tell how many objects each model finds above a score, by class where there are several."""
    line = f"Above a score of {score:.2f} the source model finds {counted(len(source), source)}, the adapted model "
    line += f"{counted(len(adapted), adapted)}."
    names = sorted({found.classes[label] for found in (source, adapted) for label in found.labels})
    if len(names) < 2:
        return line
    counts = (f"{source.titles.get(name, name)} {_number(source, name)} → {_number(adapted, name)}" for name in names)
    return f"{line} By class: {'; '.join(counts)}."


def operating_score(source: Card, adapted: Card) -> tuple[float, str]:
    """Return the score at which a pair opens, and a sentence on where it is from.

    It is the score of the best F1 on the source's own labelled validation list, from its card: labels of the new domain
    choose nothing.
    """
    for card in (source, adapted):
        calibration = read_calibration(card)
        if calibration and calibration.all.operating_score is not None:
            found = round(calibration.all.operating_score, 2)
            return found, f"The page opens at {found:.2f}, the best score on {calibration.data.split(': ')[-1]}."
    return FIRST_SCORE, f"The models have no record of a score to work at: the page opens at {FIRST_SCORE:.2f}."


def result_record(
    source: Detections, adapted: Detections, score: float, facts: Mapping[str, str], notes: Sequence[str]
) -> dict[str, Any]:
    """Format the result as a record for JSON."""
    changes = find_changes(source, adapted)
    return {
        "notice": RESEARCH_NOTICE,
        **{name.lower().replace(" ", "_"): value for name, value in facts.items()},
        "score_above": score,
        "notes": list(notes),
        "changed": {name: len(getattr(changes, name)) for name in ("gained", "lost", "moved", "same")},
        "source": source.to_record(),
        "adapted": adapted.to_record(),
    }


def result_csv(source: Detections, adapted: Detections, of: Mapping[str, str]) -> str:
    """Format all boxes as a CSV, safe for spreadsheets: what became of each, its edges in pixels of the image.

    Args:
        source: Boxes of the source model.
        adapted: Boxes of the adapted model.
        of: What the result is of, by column.
    """
    changes = find_changes(source, adapted)
    rows = [
        *_rows(adapted, changes, ("gained", "moved", "same"), "adapted"),
        *_rows(source, changes, ("lost",), "source"),
    ]
    header = [*of, "change", "model", "class", "score", "left", "top", "right", "bottom", "made_by", "notice"]
    return to_csv(header, [[*of.values(), *row, RESEARCH_NOTICE] for row in rows])


def _rows(found: Detections, changes: Changes, names: Sequence[str], role: str) -> list[list[Cell]]:
    return [
        [
            name,
            role,
            found.classes[found.labels[place]],
            round(float(found.scores[place]), 4),
            *(round(float(edge), 2) for edge in found.boxes[place]),
            found.model,
        ]
        for name in names
        for place in getattr(changes, name).tolist()
    ]


def _number(found: Detections, name: str) -> int:
    return sum(found.classes[label] == name for label in found.labels)
