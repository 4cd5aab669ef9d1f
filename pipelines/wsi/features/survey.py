"""Survey of feature files before training: complete, finite, of one encoder and width."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

from pipelines.wsi.cohort.file_matching import NUM_EXAMPLES, SlideRecord
from pipelines.wsi.features.origin import cautions, differences, encoder_differences
from pipelines.wsi.features.summaries import FileSummary, summarise_all
from vision_core.errors import DataError
from vision_core.slides.features.files import describe_encoder

_MPP_TOLERANCE = 0.02
_MAX_PROBLEMS = 50
_ALIKE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Width and origin of the feature files of some slides.

    Attributes:
        feature_dim: Features of a tile, the same in all files.
        made_with: ``encoder``, ``mpp`` and ``tile_px``, as far as the files state them.
        without_tissue: Slides without tiles.
        left_out: Slides whose file cannot be used, under ``data.on_missing=drop``.
        notes: Notes to the user.
        contents: Sum of the features of each slide that has tiles.
        same: Slides whose features are the same.
    """

    feature_dim: int
    made_with: Mapping[str, Any]
    without_tissue: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)
    same: tuple[tuple[SlideRecord, ...], ...] = ()

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
    trained: Mapping[str, Any] | None = None,
    by_first: bool = False,
) -> Survey:
    """Read and compare all feature files; one read in this process is not read again while its stamp stays.

    Args:
        records: Slides and their feature files.
        on_bad: ``refuse`` files that cannot be used, or ``drop`` their slides with a note.
        feature_dim: Feature width of the model; None: that of most files.
        trained: Origin of the features that the model was trained with (``trained_with``).
        by_first: All processes of a training call this, and the first reads for all.

    Raises:
        DataError: Files cannot be used or differ in width or origin (the error lists all), or no file has a tile.
    """
    summaries, bad = summarise_all(records, by_first=by_first)
    full = [summary for summary in summaries if summary.num_tiles]
    problems = list(bad.values()) if on_bad == "refuse" else []
    _refuse([*problems, *compare(full, feature_dim, trained)])
    made_with = _first_origins(full)
    empty = tuple(summary.record.slide for summary in summaries if not summary.num_tiles)
    if not full:
        raise DataError(f"None of the '{len(records)}' slides has a tile: {_examples(empty)}.")
    notes = _notes(full, empty, tuple(bad))
    if trained is not None:
        told = Counter(caution for summary in full for caution in cautions(trained, summary.origin))
        notes += [f"of {count} slides: {caution}" for caution, count in told.items()]
    return Survey(
        feature_dim=feature_dim or _usual_dim(full),
        made_with={name: summary.origin[name] for name, summary in made_with.items()},
        without_tissue=empty,
        left_out=tuple(bad),
        notes=tuple(notes),
        contents={summary.record.slide: summary.content for summary in full},
        same=same_features(full),
    )


def compare(
    summaries: Sequence[FileSummary], feature_dim: int | None = None, trained: Mapping[str, Any] | None = None
) -> list[str]:
    """List files that differ in width or origin from the others, or from what the model was trained with."""
    full = [summary for summary in summaries if summary.num_tiles]
    problems = _width_problems(full, feature_dim or _usual_dim(full), of_model=feature_dim is not None)
    problems += _origin_problems(full)
    for summary in full if trained else ():
        told = "; ".join(differences(trained or {}, summary.origin))
        if told:
            path = summary.record.path
            problems.append(f"'{path}' holds features {told}. Give features as the model was trained on.")
    return problems


def find_same(records: Sequence[SlideRecord], *, by_first: bool = False) -> tuple[tuple[SlideRecord, ...], ...]:
    """Group slides whose features are the same; files that cannot be used are passed over.

    Args:
        records: Slides and their feature files.
        by_first: As ``survey_features``.
    """
    return same_features(summarise_all(records, by_first=by_first)[0])


def flat_notes(summaries: Sequence[FileSummary]) -> list[str]:
    """Note slides of whose tiles all have the same features, as of an encoder that fails."""
    flat = [summary.record.slide for summary in summaries if summary.is_flat]
    if not flat:
        return []
    return [f"THE SAME FEATURES IN ALL TILES of {len(flat)} slides: did their encoder fail? ({_examples(flat)})"]


def alike_notes(summaries: Sequence[FileSummary]) -> list[str]:
    """Note slides whose features differ in the order or the precision of their tiles alone, as of a copy."""
    groups: dict[tuple[int, int], list[FileSummary]] = defaultdict(list)
    for summary in summaries:
        if summary.num_tiles and summary.means and not summary.is_flat:
            groups[summary.num_tiles, summary.dim].append(summary)
    pairs = [
        f"'{one.record.slide}' and '{other.record.slide}'"
        for group in groups.values()
        for one, other in combinations(group, 2)
        if one.content != other.content and _is_alike(one.means, other.means)
    ]
    if not pairs:
        return []
    return [f"THE SAME FEATURES IN ANOTHER ORDER OR PRECISION, as of a copy: {_examples(pairs)}"]


def _is_alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Compare means of features; half precision moves them by a thousandth at most."""
    scale = max(map(abs, one))
    return max(abs(first - second) for first, second in zip(one, other, strict=True)) <= _ALIKE * scale


def same_features(summaries: Sequence[FileSummary]) -> tuple[tuple[SlideRecord, ...], ...]:
    """Group slides whose features and corners are the same."""
    groups: dict[str, list[SlideRecord]] = defaultdict(list)
    for summary in summaries:
        if summary.num_tiles:
            groups[summary.content].append(summary.record)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _usual_dim(summaries: Sequence[FileSummary]) -> int:
    most_common = Counter(summary.dim for summary in summaries).most_common(1)
    return most_common[0][0] if most_common else 0


def _width_problems(summaries: Sequence[FileSummary], dim: int, *, of_model: bool) -> list[str]:
    others = f"the model takes {dim} and expects" if of_model else f"most files have {dim}, like those of"
    return [
        f"'{summary.record.path}' has {summary.dim} features a tile, {others} {describe_encoder(dim)}; these features "
        f"look like {describe_encoder(summary.dim)}. Use features of one encoder, that of the model."
        for summary in summaries
        if summary.dim != dim
    ]


def _first_origins(summaries: Sequence[FileSummary]) -> dict[str, FileSummary]:
    """Find the first file that states each attribute."""
    first: dict[str, FileSummary] = {}
    for summary in summaries:
        for name in summary.origin:
            first.setdefault(name, summary)
    return first


def _origin_problems(summaries: Sequence[FileSummary]) -> list[str]:
    """List files that contradict the first that states an attribute."""
    first = _first_origins(summaries)
    return [
        f"'{summary.record.path}': {name} is {_quoted(value)}; that of '{first[name].record.path}' is "
        f"{_quoted(first[name].origin[name])}. One model needs features of one origin: extract them again."
        for summary in summaries
        for name, value in summary.origin.items()
        if not _is_same_origin(first[name].origin[name], value)
    ]


def _is_same_origin(one: Any, other: Any) -> bool:  # noqa: ANN401 (attributes of foreign files)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_MPP_TOLERANCE)
    if isinstance(one, Mapping | str) and isinstance(other, Mapping | str):
        return not encoder_differences(one, other)
    return bool(one == other)


def _quoted(value: Any) -> str:  # noqa: ANN401
    return f"'{value.get('name', value)}'" if isinstance(value, Mapping) else f"'{value}'"


def _notes(full: Sequence[FileSummary], empty: Sequence[str], bad: Sequence[str]) -> list[str]:
    skipped = {"slides without tissue, passed over": empty, "slides whose features cannot be used, left out": bad}
    notes = [f"{what}: {len(names)} ({_examples(names)})" for what, names in skipped.items() if names]
    notes += [*flat_notes(full), *alike_notes(full)]
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
