"""What was found for which words, in words; as table, CSV and JSON."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.ovd.data.vocabulary_split import Split
from pipelines.ovd.predict import Typed
from vision_core.bundles.card import Card
from vision_core.csv_tables import Cell, to_csv
from vision_core.results import RESEARCH_NOTICE, Detections

_LISTED = 6


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was asked for, and what was found above the words' own thresholds.

    Attributes:
        typed: The words.
        not_wanted: Words that compete and are not shown, as they were typed.
        found: All boxes; none for words that the model has not learned anything like.
    """

    typed: Typed
    not_wanted: str
    found: Detections

    def above(self, score: float) -> Detections:
        """Select the boxes with a score strictly greater."""
        return self.found.above(score)


def learned_lines(split: Split, card: Card) -> list[str]:
    """Tell which words a model has learned, how, and how well each kind went."""
    means = {
        name: value for scores in card.metrics.values() for name, value in scores.items() if name.endswith("_ap50")
    }
    base, novel = (
        f" (AP50 {100 * means[name]:.0f} of 100)" if means.get(name) is not None else ""
        for name in ("base_ap50", "novel_ap50")
    )
    return [
        f"Learned with boxes{base}: {', '.join(split.base)}.",
        f"Learned by their names, without a box{novel}: {', '.join(split.novel)}. Any other word is a guess.",
    ]


def headline(answer: Answer, score: float) -> str:
    """Tell what was found, or that the words are none that the model has learned."""
    found = answer.above(score)
    counts = np.bincount(found.labels, minlength=len(found.classes))
    known = [name for name in found.classes if name not in answer.typed.far]
    if not known:
        return unknown_words(answer)
    parts = [f"{name}: {count}" for name, count in zip(found.classes, counts, strict=True) if count]
    return f"Found {'; '.join(parts)}." if parts else f"Nothing found for {_listed(known)}."


def unknown_words(answer: Answer) -> str:
    """Tell of words that the model has not learned anything like; empty without any."""
    far = answer.typed.far
    return f"This model has not learned words like {_listed(far)}: nothing is marked for them." if far else ""


def explanation(answer: Answer, score: float) -> list[str]:
    """Tell what a box had to pass, what was not found, and what is strange about the words."""
    found = answer.above(score)
    known = [name for name in found.classes if name not in answer.typed.far]
    missing = [name for name in known if not (found.labels == found.classes.index(name)).any()]
    lines = [f"Boxes with a score above {score:.2f} and above the word's own threshold."] if known else []
    if missing and len(missing) < len(known):
        lines.append(f"Nothing for {_listed(missing)}.")
    if answer.not_wanted.strip():
        lines.append(f"Competing, and not shown: {answer.not_wanted.strip()}.")
    told = [line.removeprefix("warning: ") for line in answer.typed.notes if "has not learned" not in line]
    return [*lines, *([unknown_words(answer)] if known else []), *(line[:1].upper() + line[1:] for line in told)]


def words_table(answer: Answer, score: float) -> str:
    """Write a table of the words: how many boxes, and the score up to which each fires on background."""
    found = answer.above(score)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f"<td>{'not learned' if name in answer.typed.far else int((found.labels == label).sum())}</td>"
        f"<td>{float(answer.typed.thresholds[label]):.3f}</td></tr>"
        for label, name in enumerate(found.classes)
    )
    head = '<tr><th scope="col">word</th><th scope="col">boxes</th><th scope="col">own threshold</th></tr>'
    return f'<table class="numbers"><caption>Words</caption><thead>{head}</thead><tbody>{rows}</tbody></table>'


def result_record(answer: Answer, score: float, facts: Mapping[str, str], notes: Sequence[str]) -> dict[str, Any]:
    """Format the result as a record for JSON."""
    typed = answer.typed
    thresholds = [round(value, 4) for value in typed.thresholds.tolist()]
    return {
        "notice": RESEARCH_NOTICE,
        **{name.lower().replace(" ", "_"): value for name, value in facts.items()},
        "words": dict(zip(typed.names, thresholds, strict=True)),
        "not_learned": list(typed.far),
        "not_wanted": answer.not_wanted,
        "score_above": score,
        "notes": [*typed.notes, *notes],
        **answer.above(score).to_record(),
    }


def result_csv(answer: Answer, score: float, of: Mapping[str, str]) -> str:
    """Format the boxes as a CSV, safe for spreadsheets: word, score, edges in pixels of the image.

    Args:
        answer: What was asked for and found.
        score: Boxes above it are listed.
        of: What the result is of, by column.
    """
    found = answer.above(score)
    rows: list[list[Cell]] = [
        [
            *of.values(),
            found.classes[label],
            round(float(value), 4),
            *(round(float(edge), 2) for edge in box),
            found.model,
        ]
        for label, value, box in zip(found.labels, found.scores, found.boxes, strict=True)
    ]
    header = [*of, "word", "score", "left", "top", "right", "bottom", "made_by", "notice"]
    return to_csv(header, [[*row, RESEARCH_NOTICE] for row in rows])


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(f"'{word}'" for word in words[:_LISTED]) + more
