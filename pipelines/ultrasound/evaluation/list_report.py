"""Report of a labelled list: a table of its frames, violins of Dice, areas against the consensus, curves of a gate."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.ultrasound.data.lists import FrameList
from pipelines.ultrasound.evaluation.pictures import Violin, draw_areas, draw_curve, draw_violins
from pipelines.ultrasound.evaluation.rows import Floats, ListScores, end_to_end_dice
from pipelines.ultrasound.screening.calibration import curve_record
from vision_core.csv_tables import Cell, to_csv
from vision_core.files import write_atomic
from vision_core.results import as_share
from vision_core.runs.repeats import experiment_of

FRAMES = "frames.csv"
VIOLINS, AGREEMENT, CURVE, BY_RUN = "dice.png", "area.png", "gate_curve_{}.png", "dice_by_run.png"
_HEADER = (
    "model", "frame", "subject", "present", "consensus_px", "score", "mask_px", "confidence", "dice", "dice_end_to_end",
    "surface_px", "band_coverage", "observers_band_coverage",
)  # fmt: skip


def write_list_report(
    folder: Path,
    frames: FrameList,
    scored: Mapping[str, ListScores],
    thresholds: Mapping[str, float],
    *,
    synthetic: bool = False,
) -> None:
    """Write table and pictures of the models on a list.

    Args:
        folder: Where they go, with captions for the report.
        frames: The list.
        scored: What each model makes of it.
        thresholds: Of the models that are gates, those of their screens.
        synthetic: Whether the frames are made by code, which the pictures say.
    """
    rows = [row for name, found in scored.items() for row in _rows(name, frames, found, thresholds.get(name))]
    write_atomic(folder / FRAMES, to_csv(_HEADER, rows))
    captions = {}
    has_masks = {name: found for name, found in scored.items() if not np.isnan(found.dice).all()}
    if has_masks:
        groups: dict[str, Violin] = {}
        for name, found in has_masks.items():
            if name in thresholds:
                groups |= {"alone": _violin(found.dice, found)}
                groups |= {"behind the gate": _violin(end_to_end_dice(found, thresholds[name]), found)}
            else:
                groups |= {name: _violin(np.where(found.present, found.dice, np.nan), found)}
        draw_violins(folder / VIOLINS, groups, synthetic=synthetic)
        which = "all frames, empty ones counting 1 or 0" if thresholds else "frames that show the organ"
        captions[VIOLINS] = f"Dice of {which}, list '{frames.name}'; a dot a subject, a bar their mean."
        name, found = list(has_masks.items())[-1]
        draw_areas(folder / AGREEMENT, found, synthetic=synthetic)
        whose = f"of '{name}'" if len(has_masks) > 1 else "before a gate"
        captions[AGREEMENT] = (
            f"Area of the masks {whose} and of the consensus, list '{frames.name}', where both are there; limits of "
            "agreement of 95 %, of frames: those of one subject are alike."
        )
    for name in has_masks.keys() & thresholds.keys():
        path = folder / CURVE.format(has_masks[name].name)
        draw_curve(path, curve_record(has_masks[name]), thresholds[name], synthetic=synthetic)
        captions[path.name] = f"The gate on '{has_masks[name].name}', by threshold; dashed: the one in use."
    add_captions(folder, captions)


def compare_runs(runs: Mapping[str, Path], *, synthetic: bool = False) -> None:
    """Draw the Dice of several runs side by side into the first of them, from their tables; nothing for one.

    Those that differ in seed alone are one violin, unless there is nothing else.
    """
    tables = {name: found for name, path in runs.items() if (found := _read_dice(path / "pictures" / FRAMES))}
    has_others = len({experiment_of(name) for name in tables}) > 1
    groups: dict[str, list[dict[str, str]]] = {}
    for name, rows in tables.items():
        groups.setdefault(experiment_of(name) or name if has_others else name, []).extend(rows)
    if len(groups) > 1:
        folder = runs[next(iter(tables))] / "pictures"
        draw_violins(folder / BY_RUN, {name: _violin_of(rows) for name, rows in groups.items()}, synthetic=synthetic)
        words = "Dice of frames that show the organ, by run, those of several seeds together; a dot a subject, a bar "
        add_captions(folder, {BY_RUN: f"{words}their mean."})


def add_captions(folder: Path, captions: Mapping[str, str]) -> None:
    """Add captions of pictures to those that are there."""
    path = folder / "captions.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_atomic(path, json.dumps({**known, **captions}, indent=1, ensure_ascii=False))


def _violin(dice: Floats, found: ListScores) -> Violin:
    return Violin.of(dice, found.subjects)


def _rows(name: str, frames: FrameList, found: ListScores, threshold: float | None) -> list[list[Cell]]:
    nothing = np.full(len(found.present), np.nan)
    bands = found.bands
    columns: list[NDArray[np.floating]] = [
        found.scores,
        found.areas,
        found.confidence,
        found.dice,
        nothing if threshold is None else end_to_end_dice(found, threshold),
        found.surface,
        nothing if bands is None else bands.coverage,
        nothing if bands is None else bands.observers_coverage,
    ]
    areas = nothing if found.true_areas is None else found.true_areas
    rows: list[list[Cell]] = []
    for number, frame in enumerate(frames.names):
        start: list[Cell] = [name, frame.text, frame.subject, int(found.present[number]), _cell(areas[number])]
        rows.append([*start, *(_cell(column[number]) for column in columns)])
    return rows


def _cell(value: float) -> Cell:
    if not np.isfinite(value):
        return ""
    return int(value) if value == int(value) else as_share(float(value))


def _read_dice(path: Path) -> list[dict[str, str]]:
    """Read the frames with the organ from a table; of several models, those of the last."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["dice"] and row["present"] == "1"]
    return [row for row in rows if row["model"] == rows[-1]["model"]]


def _violin_of(rows: Sequence[Mapping[str, str]]) -> Violin:
    subjects = [row["subject"] for row in rows]
    return Violin.of(np.array([float(row["dice"]) for row in rows]), subjects if all(subjects) else None)
