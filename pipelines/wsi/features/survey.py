"""Every feature file of a run looked at once before the first step: whole, finite, of one encoder and one width."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipelines.wsi.cohort.file_matching import NUM_EXAMPLES, SlideRecord
from vision_core.console import track
from vision_core.errors import DataError, InputError
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import Features, described
from vision_core.slides.features.hdf5 import H5Rows

MADE_WITH = ("encoder", "mpp", "tile_px")

_OWN_OF_MACHINE = {"precision"}  # bf16 changes features by less than tells encoders apart
_MPP_TOLERANCE = 0.02
_MAX_PROBLEMS = 50


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the feature files of some slides are.

    Attributes:
        feature_dim: Features of a tile, the same in all.
        made_with: ``encoder``, ``mpp`` and ``tile_px``, as far as the files say.
        without_tissue: Slides with no tile.
        left_out: Slides whose file cannot be used, where that is allowed.
        notes: What a person should know.
    """

    feature_dim: int
    made_with: Mapping[str, Any]
    without_tissue: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, records: Sequence[SlideRecord]) -> "Survey":
        """The same for some of the slides."""
        names = {record.slide for record in records}
        empty = tuple(name for name in self.without_tissue if name in names)
        return replace(self, without_tissue=empty, left_out=tuple(name for name in self.left_out if name in names))

    def refuse_absent_classes(self, list_name: str, labels: Sequence[int], classes: Sequence[str]) -> None:
        """Refuse a list that has lost a class with its slides without tissue or without sound files.

        Raises:
            DataError: It has.
        """
        absent = [name for each, name in enumerate(classes) if each not in labels]
        if absent:
            lost = _some([*self.without_tissue, *self.left_out])
            raise DataError(
                f"No {list_name} slide of class '{absent[0]}' is left: without tissue or unreadable are {lost}. "
                "Add slides, or use another division."
            )


def survey_features(
    records: Sequence[SlideRecord],
    on_bad: Literal["refuse", "drop"] = "refuse",
    *,
    feature_dim: int | None = None,
    progress: str = "",
) -> Survey:
    """Read every file once.

    Args:
        records: Slides and their feature files.
        on_bad: What to do about a file that cannot be used: refuse, or leave the slide out and say so.
        feature_dim: Of the model that is to read them; None: that of most files.
        progress: Names the bar; none without.

    Raises:
        DataError: Files cannot be used or differ in width or origin, all of them told; or there is no tile at all.
    """
    sheets, bad = _read_all(records, progress)
    problems = list(bad.values()) if on_bad == "refuse" else []
    full = [sheet for sheet in sheets if sheet.num_tiles]
    dim = feature_dim or _most([sheet.dim for sheet in full])
    problems += _width_problems(full, dim, of_model=feature_dim is not None)
    made_with, differing = _made_with(full)
    _refuse(problems + differing)
    empty = tuple(sheet.record.slide for sheet in sheets if not sheet.num_tiles)
    if not full:
        raise DataError(f"None of the '{len(records)}' slides has a tile to learn from or to score: {_some(empty)}.")
    return Survey(
        feature_dim=dim,
        made_with=made_with,
        without_tissue=empty,
        left_out=tuple(bad),
        notes=tuple(_notes(full, empty, tuple(bad))),
    )


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    """What is kept of a file."""

    record: SlideRecord
    num_tiles: int
    dim: int
    said: Mapping[str, Any]


def _read_all(records: Sequence[SlideRecord], progress: str) -> tuple[list[_Sheet], dict[str, str]]:
    sheets: list[_Sheet] = []
    bad: dict[str, str] = {}
    seen: Iterable[SlideRecord] = {record.slide: record for record in records}.values()
    for record in track(seen, len({each.slide for each in records}), progress, "file") if progress else seen:
        try:
            features = read_any_features(record.path)
        except InputError as error:
            bad[record.slide] = " ".join(error.problems)
            continue
        sheets.append(_sheet(record, features))
    return sheets, bad


def _sheet(record: SlideRecord, features: Features) -> _Sheet:
    if isinstance(features.features, H5Rows):
        features.features.close()
    said = {name: features.attributes[name] for name in MADE_WITH if features.attributes.get(name) is not None}
    return _Sheet(record=record, num_tiles=len(features), dim=features.dim, said=said)


def _most(dims: Sequence[int]) -> int:
    return Counter(dims).most_common(1)[0][0] if dims else 0


def _width_problems(sheets: Sequence[_Sheet], dim: int, *, of_model: bool) -> list[str]:
    others = f"the model takes {dim} and expects" if of_model else f"most files have {dim}, like those of"
    return [
        f"'{sheet.record.path}' has {sheet.dim} features a tile, {others} {described(dim)}; these features look like "
        f"{described(sheet.dim)}. Use features of one encoder, that of the model."
        for sheet in sheets
        if sheet.dim != dim
    ]


def _made_with(sheets: Sequence[_Sheet]) -> tuple[dict[str, Any], list[str]]:
    """What the files say, each point by the first that says it, and where others say something else."""
    first: dict[str, _Sheet] = {}
    problems = []
    for sheet in sheets:
        for name, value in sheet.said.items():
            known = first.setdefault(name, sheet)
            if not _agree(known.said[name], value):
                problems.append(
                    f"'{sheet.record.path}': {name} is {_short(value)}; that of '{known.record.path}' is "
                    f"{_short(known.said[name])}. Features of one model are made alike: extract them again."
                )
    return {name: sheet.said[name] for name, sheet in first.items()}, problems


def _agree(one: Any, other: Any) -> bool:  # noqa: ANN401 (whatever a file says)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(one[name] == other[name] for name in one.keys() & other.keys() - _OWN_OF_MACHINE)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_MPP_TOLERANCE)
    return bool(one == other)


def _short(value: Any) -> str:  # noqa: ANN401
    return f"'{value.get('name', value)}'" if isinstance(value, Mapping) else f"'{value}'"


def _notes(full: Sequence[_Sheet], empty: Sequence[str], bad: Sequence[str]) -> list[str]:
    told = {"slides without tissue, passed over": empty, "slides whose features cannot be used, left out": bad}
    notes = [f"{what}: {len(names)} ({_some(names)})" for what, names in told.items() if names]
    silent = sum(not {"encoder", "mpp"} <= set(sheet.said) for sheet in full)
    if silent:
        notes.append(
            f"{silent} of {len(full)} feature files do not say with which encoder or at how many microns per pixel "
            "they were made; 'wsi adopt' writes that beside them"
        )
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NUM_EXAMPLES]) + (", ..." if len(names) > NUM_EXAMPLES else "")


def _refuse(problems: Sequence[str]) -> None:
    if len(problems) > _MAX_PROBLEMS:
        problems = [*problems[:_MAX_PROBLEMS], f"'{len(problems)}' feature files have problems in all."]
    if problems:
        raise DataError(problems)
