"""Selection of a teacher without labels: numbers of the source and each kept teacher, and what a rule makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.sfod.verdict.comparing import Model, load_model
from pipelines.sfod.verdict.numbers import BASELINES, NUMBERS, Source
from pipelines.sfod.verdict.probing import Probe, Prober
from pipelines.sfod.verdict.rule import Rule, Verdict, choose, judge, predicted_gains
from pipelines.sfod.verdict.source import read_source
from vision_core.console import track
from vision_core.csv_tables import Cell, to_csv
from vision_core.detection.model.detector import Detector
from vision_core.detection.weights.bundles import load_detector, prepare, save_detector
from vision_core.errors import DataError
from vision_core.files import to_json, write_atomic
from vision_core.images.reading import read_noted_image
from vision_core.results import RESEARCH_NOTICE
from vision_core.runs.kept_teachers import list_kept, load_kept

Floats = NDArray[np.float64]
JSON_FILE, CSV_FILE = "selection.json", "selection.csv"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The source (step 0) or a kept teacher, compared with the source.

    Attributes:
        step: Of the run.
        verdict: Against the source.
        gains: ``(B,)`` draws of the predicted gain; NaN of one that did harm, None without a rule.
    """

    step: int
    verdict: Verdict
    gains: Floats | None

    def to_row(self) -> dict[str, Cell]:
        """Write as a row of the table; gains are points of AP50, 0 to 1."""
        known = self.gains is not None and bool(np.isfinite(self.gains).any())
        return {
            "step": self.step,
            "model": "teacher" if self.step else "source",
            "without_labels": self.verdict.kind if self.step else "",
            "predicted_gain": float(np.nanmean(self.gains)) if known else None,  # type: ignore[arg-type]
            "standard_error": float(np.nanstd(self.gains)) if known else None,  # type: ignore[arg-type]
            "boxes_an_image": self.verdict.boxes[1],
            **{name: self.verdict.after[name] for name in (*NUMBERS, *BASELINES)},
        }


def select(run: Path, start: Path, images: Sequence[Path], device: torch.device, rule: Rule | None) -> tuple[str, ...]:
    """Compare all kept teachers of a run with its source, write the table, and deliver the chosen one.

    With a rule the earliest within one standard error of the best prediction is chosen, the source always a candidate;
    what a veto calls harmful is none. Without a rule nothing is: the last teacher stays what is delivered.

    Args:
        run: Folder of the run, with its bundle and its kept teachers.
        start: Bundle that it started from.
        images: To compare on.
        device: Where to compute.
        rule: Fitted for the source.

    Returns:
        What was done, a sentence each.

    Raises:
        DataError: No teacher was kept.
    """
    kept = list_kept(run)
    if not kept:
        raise DataError(f"'{run}' holds no kept teacher to select from. Train with train.keep_teachers=10.")
    model = load_model(start, device)
    source, _ = read_source(model.card)
    before = _probe(model.detector, source, images, "numbers of the source")
    candidates = [_candidate(0, before, before, source, rule)]
    for step, path in kept.items():
        model.detector.load_state_dict(load_kept(path))
        after = _probe(model.detector, source, images, f"numbers of step {step}")
        candidates.append(_candidate(step, before, after, source, rule))
    last = candidates[-1].step
    chosen = _chosen(candidates)
    told = _told(chosen, last, has_rule=rule is not None)
    if chosen is not None and chosen != last:
        _deliver(run / "model", load_model(start, device) if chosen == 0 else _at(model, kept[chosen]), told)
    rows = [each.to_row() for each in candidates]
    record: dict[str, Any] = {
        "notice": RESEARCH_NOTICE,
        "images": len(images),
        "selected": chosen,
        "delivered": last if chosen is None else chosen,
        "why": told,
        "candidates": rows,
    }
    write_atomic(run / JSON_FILE, to_json(record))
    write_atomic(run / CSV_FILE, to_csv(list(rows[0]), [list(row.values()) for row in rows]))
    return (f"{told} Numbers of {len(kept)} teachers and the source on {len(images)} images: {run / CSV_FILE}.",)


def _probe(detector: Detector, source: Source, images: Sequence[Path], label: str) -> list[Probe]:
    prober = Prober(detector, source.operating_score)
    return [
        prober(prepare(read_noted_image(path)[0], detector.settings), path.name)
        for path in track(images, len(images), label, "image")
    ]


def _candidate(
    step: int, before: Sequence[Probe], after: Sequence[Probe], source: Source, rule: Rule | None
) -> Candidate:
    verdict = judge(before, after, source, rule)
    gains = None
    if rule is not None:
        gains = predicted_gains(before, after, source, rule)
        # Where its own numbers are not known, the source still gains nothing on itself.
        gains = np.zeros_like(gains) if not step else gains
        gains = np.full_like(gains, np.nan) if verdict.kind == "harmful" else gains
    return Candidate(step=step, verdict=verdict, gains=gains)


def _chosen(candidates: Sequence[Candidate]) -> int | None:
    """Return the step of the chosen one; None without a rule."""
    gains = [each.gains for each in candidates if each.gains is not None]
    return candidates[choose(gains)].step if gains else None


def _told(chosen: int | None, last: int, *, has_rule: bool) -> str:
    if not has_rule or chosen is None:
        return f"No teacher is selected, as the source has no fitted rule: the last one, of step {last}, is delivered."
    if chosen == 0:
        return "No teacher is predicted to be better than the source: the source itself is delivered."
    return f"Selected without labels: the teacher of step {chosen} of {last} is delivered."


def _at(model: Model, path: Path) -> Model:
    model.detector.load_state_dict(load_kept(path))
    return model


def _deliver(folder: Path, model: Model, told: str) -> None:
    """Replace the weights of the run's bundle by those of ``model``; its card says so."""
    _, card = load_detector(folder)
    save_detector(folder, model.detector.cpu(), card.model_copy(update={"limits": f"{card.limits} {told}"}))
