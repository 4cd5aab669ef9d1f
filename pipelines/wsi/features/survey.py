"""Survey of feature files before training: complete, finite, of one encoder and width."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipelines.wsi.cohort.file_matching import NUM_EXAMPLES, SlideRecord
from vision_core.console import track
from vision_core.errors import DataError, InputError
from vision_core.slides.features.adopted import read_any_features
from vision_core.slides.features.files import describe_encoder
from vision_core.slides.features.hdf5 import H5Rows

MADE_WITH = ("encoder", "mpp", "tile_px")

_IGNORED = {"precision"}  # bf16 changes features by less than another encoder does
_MPP_TOLERANCE = 0.02
_MAX_PROBLEMS = 50


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Width and origin of the feature files of some slides.

    Attributes:
        feature_dim: Features of a tile, the same in all files.
        made_with: ``encoder``, ``mpp`` and ``tile_px``, as far as the files state them.
        without_tissue: Slides without tiles.
        left_out: Slides whose file cannot be used, under ``data.on_missing=drop``.
        notes: Notes to the user.
    """

    feature_dim: int
    made_with: Mapping[str, Any]
    without_tissue: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def subset(self, records: Sequence[SlideRecord]) -> "Survey":
        """Restrict the survey to some of the slides."""
        names = {record.slide for record in records}
        empty = tuple(name for name in self.without_tissue if name in names)
        return replace(self, without_tissue=empty, left_out=tuple(name for name in self.left_out if name in names))

    def refuse_absent_classes(self, list_name: str, labels: Sequence[int], classes: Sequence[str]) -> None:
        """Refuse a list that lacks a class for want of tissue or sound files.

        Raises:
            DataError: A class has no slide left.
        """
        absent = [name for each, name in enumerate(classes) if each not in labels]
        if absent:
            lost = _examples([*self.without_tissue, *self.left_out])
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
    """Read and compare all feature files.

    Args:
        records: Slides and their feature files.
        on_bad: ``refuse`` files that cannot be used, or ``drop`` their slides with a note.
        feature_dim: Feature width of the model; None: that of most files.
        progress: Name of the progress bar; empty: no bar.

    Raises:
        DataError: Files cannot be used or differ in width or origin (the error lists all), or no file has a tile.
    """
    summaries, bad = _read_all(records, progress)
    problems = list(bad.values()) if on_bad == "refuse" else []
    full = [summary for summary in summaries if summary.num_tiles]
    most_common = Counter(summary.dim for summary in full).most_common(1)
    dim = feature_dim or (most_common[0][0] if most_common else 0)
    problems += _width_problems(full, dim, of_model=feature_dim is not None)
    made_with, differing = _made_with(full)
    _refuse(problems + differing)
    empty = tuple(summary.record.slide for summary in summaries if not summary.num_tiles)
    if not full:
        raise DataError(f"None of the '{len(records)}' slides has a tile: {_examples(empty)}.")
    return Survey(
        feature_dim=dim,
        made_with=made_with,
        without_tissue=empty,
        left_out=tuple(bad),
        notes=tuple(_notes(full, empty, tuple(bad))),
    )


@dataclass(frozen=True, kw_only=True)
class _FileSummary:
    """Size and origin of a feature file."""

    record: SlideRecord
    num_tiles: int
    dim: int
    origin: Mapping[str, Any]


def _read_all(records: Sequence[SlideRecord], progress: str) -> tuple[list[_FileSummary], dict[str, str]]:
    summaries: list[_FileSummary] = []
    bad: dict[str, str] = {}
    seen: Iterable[SlideRecord] = {record.slide: record for record in records}.values()
    for record in track(seen, len({each.slide for each in records}), progress, "file") if progress else seen:
        try:
            features = read_any_features(record.path)
        except InputError as error:
            bad[record.slide] = " ".join(error.problems)
            continue
        if isinstance(features.features, H5Rows):
            features.features.close()
        origin = {name: value for name in MADE_WITH if (value := features.attributes.get(name)) is not None}
        summaries.append(_FileSummary(record=record, num_tiles=len(features), dim=features.dim, origin=origin))
    return summaries, bad


def _width_problems(summaries: Sequence[_FileSummary], dim: int, *, of_model: bool) -> list[str]:
    others = f"the model takes {dim} and expects" if of_model else f"most files have {dim}, like those of"
    return [
        f"'{summary.record.path}' has {summary.dim} features a tile, {others} {describe_encoder(dim)}; these features "
        f"look like {describe_encoder(summary.dim)}. Use features of one encoder, that of the model."
        for summary in summaries
        if summary.dim != dim
    ]


def _made_with(summaries: Sequence[_FileSummary]) -> tuple[dict[str, Any], list[str]]:
    """Merge the origins that files state, and list contradictions.

    The first file that states an attribute decides.
    """
    first: dict[str, _FileSummary] = {}
    problems = []
    for summary in summaries:
        for name, value in summary.origin.items():
            known = first.setdefault(name, summary)
            if not _is_same_origin(known.origin[name], value):
                problems.append(
                    f"'{summary.record.path}': {name} is {_quoted(value)}; that of '{known.record.path}' is "
                    f"{_quoted(known.origin[name])}. One model needs features of one origin: extract them again."
                )
    return {name: summary.origin[name] for name, summary in first.items()}, problems


def _is_same_origin(one: Any, other: Any) -> bool:  # noqa: ANN401 (attributes of foreign files)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(one[name] == other[name] for name in one.keys() & other.keys() - _IGNORED)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_MPP_TOLERANCE)
    return bool(one == other)


def _quoted(value: Any) -> str:  # noqa: ANN401
    return f"'{value.get('name', value)}'" if isinstance(value, Mapping) else f"'{value}'"


def _notes(full: Sequence[_FileSummary], empty: Sequence[str], bad: Sequence[str]) -> list[str]:
    skipped = {"slides without tissue, passed over": empty, "slides whose features cannot be used, left out": bad}
    notes = [f"{what}: {len(names)} ({_examples(names)})" for what, names in skipped.items() if names]
    unknown = sum(not {"encoder", "mpp"} <= set(summary.origin) for summary in full)
    if unknown:
        notes.append(
            f"{unknown} of {len(full)} feature files do not say with which encoder or at how many microns per pixel "
            "they were made; 'wsi adopt' writes that beside them"
        )
    return notes


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:NUM_EXAMPLES]) + (", ..." if len(names) > NUM_EXAMPLES else "")


def _refuse(problems: Sequence[str]) -> None:
    if len(problems) > _MAX_PROBLEMS:
        problems = [*problems[:_MAX_PROBLEMS], f"'{len(problems)}' feature files have problems in all."]
    if problems:
        raise DataError(problems)
