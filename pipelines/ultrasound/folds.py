"""Folds of an ensemble over subjects: each network is trained without one part of them, which chooses its epoch."""

from collections.abc import Iterable
from dataclasses import replace

from pipelines.ultrasound.config import UltrasoundData
from pipelines.ultrasound.data.lists import FrameList, Lists, read_lists
from pipelines.ultrasound.data.subjects import folds
from vision_core.errors import ConfigError


def read_run_lists(data: UltrasoundData, wanted: Iterable[str]) -> Lists:
    """Open the lists of a run as ``read_lists``.

    Of a fold, ``data.split`` lacks the subjects that validate, and under the name of ``data.val_split`` stand they: the
    recorded list of that name is left alone, for the threshold of a gate.

    Raises:
        ConfigError: The subjects are not known, or fewer than the folds.
    """
    if data.folds is None or data.fold is None:
        return read_lists(data, wanted)
    lists = read_lists(data, [name for name in wanted if name != data.val_split])
    whole = lists[data.split]
    if whole.subjects is None:
        raise ConfigError(
            f"The list '{data.split}' names no subjects, and folds are of subjects. Add subjects.csv, or set "
            "data.folds=null."
        )
    held_out = frozenset(folds(whole.subjects, data.folds, data.split_seed)[data.fold])
    kept = frozenset(whole.subjects) - held_out
    apart = replace(_of(whole, held_out), name=f"fold-{data.fold}")
    splits = lists.splits and replace(
        lists.splits,
        lists={**lists.splits.lists, data.split: tuple(sorted(kept)), apart.name: tuple(sorted(held_out))},
    )
    return Lists(by_name={**lists.by_name, data.split: _of(whole, kept), data.val_split: apart}, splits=splits)


def _of(whole: FrameList, subjects: frozenset[str]) -> FrameList:
    """Take the frames of some subjects."""
    named = zip(whole.indices, whole.names, strict=True)
    return replace(whole, indices=tuple(index for index, name in named if name.subject in subjects))
