"""Wording of a result: scope, then category or reason for none.

The first notes of a result are the predictor's cautions: that of scope, then that of the conformal set.
"""

import html
from dataclasses import replace

import numpy as np

from vision_core.csv_tables import Cell, to_csv
from vision_core.results import OUTSIDE, RESEARCH_NOTICE, SlideResult, as_share, decide_category

NOT_CALLED = "not called, since the model has only seen made images"


def with_cautions(result: SlideResult) -> SlideResult:
    """Put scope and doubt before the category, for page and files."""
    if result.category == NOT_CALLED:
        return replace(result, category=f"{OUTSIDE}; {NOT_CALLED}" if _is_outside(result) else NOT_CALLED)
    if not (_is_outside(result) or _is_undecided(result)):
        return result
    category = decide_category((), is_outside=_is_outside(result), is_undecided=_is_undecided(result))
    return replace(result, category=category)


def without_call(result: SlideResult) -> SlideResult:
    """Remove category, probabilities and measurements from a result, but keep its scope."""
    if not len(result):
        return replace(result, facts={})
    scope = int(_is_outside(result))
    unspoken = result.notes[:scope] + result.notes[scope + _is_undecided(result) :]
    return replace(
        result,
        classes=(),
        probabilities=np.empty(0, np.float32),
        category=NOT_CALLED,
        evidence=None,
        evidence_for="",
        facts={name: value for name, value in result.facts.items() if name == "outside"},
        notes=tuple(note for note in unspoken if not any(name in note for name in result.classes)),
    )


def describe(result: SlideResult) -> list[str]:
    """Describe a result of ``with_cautions``: the category in words, then its notes."""
    # Without the note of scope, which the category repeats.
    return [f"{result.verdict[:1].upper()}{result.verdict[1:]}.", *result.notes[_is_outside(result) :]]


def numbers_table(result: SlideResult) -> str:
    """Format probabilities and facts as an HTML table, empty without a category."""
    if NOT_CALLED in result.category:
        return ""
    facts = {f"Probability of {result.titles.get(name, name)}": f"{share:.3f}" for name, share in _shares(result)}
    facts |= {
        "Tiles": str(len(result)),
        **{_in_words(name, result): f"{each:g}" for name, each in result.facts.items()},
    }
    rows = (f'<tr><th scope="row">{html.escape(name)}</th><td>{value}</td></tr>' for name, value in facts.items())
    return f'<table class="numbers"><caption>Numbers of this result</caption>{"".join(rows)}</table>'


def result_csv(result: SlideResult, digits: str) -> str:
    """Format the result as one CSV row, safe for spreadsheets; ``digits`` are the first of the input's hash."""
    values: dict[str, Cell] = {
        "slide": result.slide,
        "category": result.category,
        "verdict": result.verdict,
        **{f"p_{name}": as_share(share) for name, share in _shares(result)},
        "tiles": len(result),
        "mpp": round(result.mpp, 6) or None,
        **{name: round(float(value), 6) for name, value in result.facts.items()},
        "notes": " ".join(result.notes),
        "input_sha256": digits,
        "model": result.model,
        "notice": RESEARCH_NOTICE,
    }
    return to_csv(list(values), [list(values.values())])


def _in_words(fact: str, result: SlideResult) -> str:
    """Write the name of a fact without identifiers: classes by their titles, spaces for underscores."""
    name = fact.removeprefix("possible_")
    if name != fact:
        return f"possible: {result.titles.get(name, name)}"
    return fact.replace("_", " ")


def _is_outside(result: SlideResult) -> bool:
    return bool(result.facts.get("outside"))


def _is_undecided(result: SlideResult) -> bool:
    return bool(result.facts.get("abstains"))


def _shares(result: SlideResult) -> list[tuple[str, float]]:
    if NOT_CALLED in result.category:
        return []
    return [(name, float(share)) for name, share in zip(result.classes, result.probabilities, strict=False)]
