"""Result folders of CLAM and TRIDENT: features, patches, labels and splits, found by layout."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.wsi.cohort.csv_table import read_table
from vision_core.errors import DataError
from vision_core.slides.features.files import FEATURE_SUFFIXES
from vision_core.slides.identity import slide_name

_SPLITS = re.compile(r"splits_(\d+)\.csv")
_CLAM_FOLDERS = ("h5_files", "h5", "pt_files", "pt")  # the first that has a slide is used: HDF5 has coordinates
_LISTS = ("train", "val", "test")
# Our names of TRIDENT's encoders, where they differ.
_TRIDENT_ENCODERS = {"uni_v1": "uni", "conch_v1": "conch"}


@dataclass(frozen=True, kw_only=True)
class ForeignFolder:
    """Result files of another program.

    Attributes:
        program: ``CLAM`` or ``TRIDENT``.
        features: Feature files by slide name.
        patches: Files of tile coordinates by slide name.
        tables: CSVs with slides and labels.
        splits: CLAM's split files by number.
        encoder: Name of the encoder, where a folder is named after it.
    """

    program: str
    features: Mapping[str, Path]
    patches: Mapping[str, Path]
    tables: tuple[Path, ...] = ()
    splits: Mapping[int, Path] = field(default_factory=dict)
    encoder: str | None = None


def find_clam(folder: Path, excluded: Path | None = None) -> ForeignFolder:
    """Find CLAM's results: ``h5_files`` or ``pt_files``, ``patches``, CSVs.

    Args:
        folder: Folder to search.
        excluded: Subfolder to skip.

    Raises:
        DataError: There are no features, or several sets of them.
    """
    files = _files(folder, excluded)
    by_kind = {kind: [path for path in files if path.parent.name == kind] for kind in _CLAM_FOLDERS}
    features: dict[str, Path] = {}
    for paths in by_kind.values():
        own = [path for path in paths if path.suffix.lower() in FEATURE_SUFFIXES]
        features = {**_by_slide(own, "--clam"), **features}
    if not features:
        raise DataError(f"'{folder}' has no folder 'h5_files' or 'pt_files' of features. Give CLAM's feature folder.")
    patches = [path for path in files if path.parent.name == "patches" and path.suffix == ".h5"]
    splits = {int(match[1]): path for path in files if (match := _SPLITS.fullmatch(path.name))}
    return ForeignFolder(
        program="CLAM",
        features=features,
        patches=_by_slide(patches, "--clam"),
        tables=label_tables(path for path in files if not path.name.startswith("splits_")),
        splits=splits,
    )


def find_trident(folder: Path, excluded: Path | None = None) -> ForeignFolder:
    """Find TRIDENT's results: ``features_<encoder>`` and ``patches``.

    Args:
        folder: Folder to search.
        excluded: Subfolder to skip.

    Raises:
        DataError: There are no features, or those of several encoders or grids.
    """
    files = _files(folder, excluded)
    holders = {path.parent for path in files if path.parent.name.startswith("features_")}
    if folder.name.startswith("features_"):
        holders = {folder}
        beside = folder.parent / "patches"
        files += _files(beside, excluded) if beside.is_dir() else []
    if len(holders) != 1:
        listing = ", ".join(f"'{each}'" for each in sorted(holders)) or "no folder 'features_<encoder>'"
        raise DataError(f"'{folder}' has {listing}. Give the folder of one encoder as --trident.")
    holder = next(iter(holders))
    own = [path for path in files if path.parent == holder and path.suffix.lower() in FEATURE_SUFFIXES]
    corners = [path for path in files if path.parent == holder.parent / "patches" and path.suffix == ".h5"]
    encoder = holder.name.removeprefix("features_")
    if not own:
        raise DataError(f"'{holder}' holds no feature files. Give the folder of an encoder that has run.")
    return ForeignFolder(
        program="TRIDENT",
        features=_by_slide(own, "--trident"),
        patches={name.removesuffix("_patches"): path for name, path in _by_slide(corners, "--trident").items()},
        tables=label_tables(files),
        encoder=_TRIDENT_ENCODERS.get(encoder, encoder),
    )


def label_tables(files: Iterable[Path]) -> tuple[Path, ...]:
    """Choose the CSVs with columns for slides and labels."""
    return tuple(path for path in files if path.suffix.lower() == ".csv" and _has_labels(path))


def read_splits(path: Path) -> dict[str, str]:
    """Read one of CLAM's split files: the list of each slide.

    Raises:
        DataError: It is no split file, or a slide is on two lists.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is no CSV of splits: {error}. Give CLAM's splits_0.csv.") from error
    if not rows or "train" not in rows[0]:
        raise DataError(f"'{path}' has no column 'train'. Give CLAM's splits_0.csv, not its '_bool' or '_descriptor'.")
    lists: dict[str, str] = {}
    problems = []
    for number, row in enumerate(rows, start=2):
        for name in _LISTS:
            slide = slide_name((row.get(name) or "").strip())
            if slide and lists.setdefault(slide, name) != name:
                problems.append(
                    f"'{path}': row {number}: slide '{slide}' is in {lists[slide]} and in {name}. Correct it."
                )
    if problems:
        raise DataError(problems)
    return lists


def _files(folder: Path, excluded: Path | None) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"'{folder}' is no folder. Give the folder that the other program has written.")
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if excluded is None:
        return found
    return [path for path in found if not path.resolve().is_relative_to(excluded.resolve())]


def _by_slide(paths: Sequence[Path], option: str) -> dict[str, Path]:
    """Index files by slide name.

    Raises:
        DataError: A slide has two files.
    """
    found: dict[str, Path] = {}
    for path in paths:
        before = found.setdefault(slide_name(path.name), path)
        if before != path:
            raise DataError(f"'{before}' and '{path}' are of one slide. Give the folder of one of them as {option}.")
    return found


def _has_labels(path: Path) -> bool:
    try:
        columns = set(read_table(path, others=True).columns)
    except DataError:
        return False
    return {"slide", "label"} <= columns
