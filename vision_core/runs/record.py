"""Reading of run folders, finished or not: every file may be missing or damaged."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vision_core.evaluation.rows import Row
from vision_core.runs.summary import SUMMARY_FILE, Summary, read_summary

JsonT = TypeVar("JsonT", dict[str, Any], list[Any])
_MARKS = ("run.json", "metrics.jsonl", "config.yaml")
_NOT_CURVES = frozenset({"step", "epoch", "time"})


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Content of a run folder.

    Attributes:
        name: Name of the folder.
        facts: ``run.json``: command, commit, versions, status and so on.
        settings: ``config.yaml``, flat: ``train.seed`` to value.
        curves: Name to ``(step, value)`` pairs, finite values only.
        evaluations: Scores, in the order of the file.
        pictures: Image files and their captions.
        gaps: Missing and damaged files, a sentence each.
        summary: What its task says about it, if anything.
    """

    name: str
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    curves: Mapping[str, tuple[tuple[float, float], ...]]
    evaluations: tuple[Row, ...]
    pictures: tuple[tuple[Path, str], ...]
    gaps: tuple[str, ...]
    summary: Summary | None = None


def find_runs(folder: Path) -> list[Path]:
    """Find the run folders below ``folder``, else ``folder`` itself, by name."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path)) if folder.is_dir() else []
    return inner or ([folder] if _is_run(folder) else [])


def read_run(folder: Path) -> RunRecord:
    """Read a run folder; missing and damaged files become ``gaps``."""
    gaps: list[str] = []
    facts = _read_json(folder / "run.json", {}, gaps)
    summary = _read_summary(folder, gaps)
    rows = _read_json(folder / "evaluation.json", [], [] if summary else gaps)  # of a list without labels there is none
    captions = _read_json(folder / "pictures" / "captions.json", {}, [])
    return RunRecord(
        name=folder.resolve().name,
        facts=facts,
        settings=_read_settings(folder / "config.yaml", gaps),
        curves=_read_curves(folder / "metrics.jsonl", gaps),
        evaluations=tuple(_evaluations(rows, gaps)),
        pictures=tuple(
            (path, str(captions.get(path.name, path.stem.replace("_", " "))))
            for path in _in_caption_order((folder / "pictures").glob("*.png"), list(captions))
            if not path.is_symlink()
        ),
        gaps=tuple(gaps),
        summary=summary,
    )


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings, with keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MARKS)


def _read_json(path: Path, empty: JsonT, gaps: list[str]) -> JsonT:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        gaps.append(f"There is no {path.name}.")
        return empty
    except (ValueError, OSError) as error:
        gaps.append(f"{path.name} cannot be read: {error}.")
        return empty
    return found if isinstance(found, type(empty)) else empty


def _read_summary(folder: Path, gaps: list[str]) -> Summary | None:
    try:
        return read_summary(folder)
    except (ValueError, OSError) as error:
        gaps.append(f"{SUMMARY_FILE} cannot be read: {str(error).splitlines()[0]}.")
        return None


def _read_settings(path: Path, gaps: list[str]) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        gaps.append(f"There is no {path.name}.")
        return {}
    except (yaml.YAMLError, ValueError, OSError) as error:
        gaps.append(f"{path.name} cannot be read: {' '.join(str(error).split())}.")
        return {}
    return flatten(found) if isinstance(found, dict) else {}


def _read_curves(path: Path, gaps: list[str]) -> dict[str, tuple[tuple[float, float], ...]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    damaged = 0
    for line in _lines(path, gaps):
        try:
            row = json.loads(line)
            step = float(row["step"])
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        for name, value in row.items():
            if name not in _NOT_CURVES and _is_number(value):
                curves.setdefault(name, []).append((step, float(value)))
    if damaged:
        gaps.append(f"{path.name}: {damaged} lines cannot be read and are left out.")
    return {name: tuple(points) for name, points in curves.items()}


def _lines(path: Path, gaps: list[str]) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        gaps.append(f"There is no {path.name}.")
        return []


def _evaluations(rows: list[Any], gaps: list[str]) -> list[Row]:
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            found.append(_evaluation(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            gaps.append(f"evaluation.json: row {number} is left out ({type(error).__name__}: {error}).")
    return found


def _evaluation(row: Mapping[str, Any]) -> Row:
    return Row(
        model=str(row["model"]),
        split=str(row["split"]),
        counts={str(name): int(count) for name, count in row["counts"].items()},
        metrics=_fractions(row["metrics"]),
        intervals={str(name): (float(low), float(high)) for name, (low, high) in row.get("intervals", {}).items()},
        per_class=_fractions(flatten(row.get("per_class", {}))),
        details={str(title): _fractions(values) for title, values in row.get("details", {}).items()},
        notes=tuple(map(str, row.get("notes", ()))),
    )


def _fractions(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(name): float(value) if _is_number(value) else None for name, value in values.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_caption_order(paths: Iterable[Path], names: list[str]) -> list[Path]:
    rank = {name: place for place, name in enumerate(names)}
    return sorted(paths, key=lambda path: (rank.get(path.name, len(rank)), path.name))
