"""The raw layout of nnU-Net, to and from: ``imagesTr/CASE_0000.png``, ``labelsTr/CASE.png``, ``dataset.json``.

A case is a frame, ``SUBJECT_NUMBER``. The test list is in ``imagesTs`` and ``labelsTs``. ``splits_final.json`` has one
fold, the lists of subjects: nnU-Net's own folds are over frames, which are alike within a subject.
Source: nnU-Net v2, documentation/dataset_format.md and manual_data_splits.md.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.ultrasound.config import UltrasoundConfig
from pipelines.ultrasound.data.formats.folders import read_grey, read_mask
from pipelines.ultrasound.data.frames import Frame, Grey, refuse
from pipelines.ultrasound.data.lists import SPLITS_FILE, read_lists
from pipelines.ultrasound.data.observers import vote
from pipelines.ultrasound.data.subjects import Splits, hash_keys, refuse_shared
from vision_core.errors import ConfigError, DataError
from vision_core.files import RepeatedKeyError, atomic_path, parse_json, write_atomic
from vision_core.images.reading import list_files

_CASE = re.compile(r"(?P<subject>[A-Za-z0-9][\w.-]*)_(?P<number>\d+)", re.ASCII)
_ENDING, _CHANNEL = ".png", "_0000"
_DATASET, _SPLITS = "dataset.json", "splits_final.json"


def to_nnunet(config: UltrasoundConfig, folder: Path) -> list[str]:
    """Write the lists of training, validation and test; returns lines to print.

    Raises:
        ConfigError: A list is named twice.
        DataError: A frame has no subject, or a name or values that the layout does not hold.
    """
    data = config.data
    names = list(filter(None, [data.split, data.val_split, data.eval_split]))
    if len(set(names)) < len(names) or data.val_split not in names:
        raise ConfigError(f"The lists '{', '.join(names)}' must be training, validation and test, each another one.")
    lists = read_lists(data, names)
    cases: dict[str, list[str]] = {}
    observers = 0
    for name in names:
        ending = "Ts" if name == data.eval_split else "Tr"
        cases[name] = []
        for index in range(len(lists[name])):
            frame = lists[name].read(index)
            case = _case_of(frame)
            _write(folder / f"images{ending}" / f"{case}{_CHANNEL}{_ENDING}", frame.image)
            _write(folder / f"labels{ending}" / f"{case}{_ENDING}", vote(frame.masks).astype(np.uint8))
            cases[name].append(case)
            observers = max(observers, len(frame.masks))
    train, val = cases[data.split], cases[data.val_split]
    described = {
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, data.classes[0]: 1},
        "numTraining": len(train) + len(val),
        "file_ending": _ENDING,
    }
    write_atomic(folder / _DATASET, json.dumps(described, indent=1) + "\n")
    write_atomic(folder / _SPLITS, json.dumps([{"train": train, "val": val}], indent=1) + "\n")
    lines = [*(f"{name}: {len(own)} frames" for name, own in cases.items()), *lists.notes]
    if observers > 1:
        lines.append(f"nnU-Net takes one label a frame: the majority of up to {observers} observers is written.")
    lines.append(
        f"Copy {_SPLITS} into the data set's folder in nnUNet_preprocessed, and train fold 0: it is by subject."
    )
    return lines


def from_nnunet(config: UltrasoundConfig, folder: Path) -> list[str]:
    """Write the frames of a raw data set as ``SUBJECT/FRAME.png`` with ``FRAME_obs00.png``, and its split.

    Raises:
        DataError: It is no such data set, its cases name no subjects, or a subject is in two lists.
    """
    root = config.data.root
    if root is None or not (root / _DATASET).is_file():
        raise DataError(f"data.root '{root}' has no {_DATASET}. Give a folder of nnUNet_raw, such as Dataset001_Name.")
    _check(root, _json(root / _DATASET))
    lists: dict[str, set[str]] = {}
    cases = {ending: _cases(root, ending) for ending in ("Tr", "Ts")}
    if not cases["Tr"]:
        raise DataError(f"'{root}' holds '0' cases in imagesTr. Name them SUBJECT_NUMBER{_CHANNEL}{_ENDING}.")
    subjects = {ending: {_named(root, case)[0] for case in own} for ending, own in cases.items()}
    splits = _json(root / _SPLITS) if (root / _SPLITS).is_file() else None
    if splits is not None:
        lists = _fold(root, splits, cases["Tr"])
    refuse_shared(
        {name: sorted(own) for name, own in {**(lists or {"train": subjects["Tr"]}), "test": subjects["Ts"]}.items()},
        str(root),
    )
    written: list[str] = []
    used: set[str] = set()
    unlabelled = 0
    for ending, own in cases.items():
        for case in own:
            label = root / f"labels{ending}" / f"{case}{_ENDING}"
            if not label.is_file():
                unlabelled += 1
                continue
            image = read_grey(root / f"images{ending}" / f"{case}{_CHANNEL}{_ENDING}")
            mask = read_mask(label, image.shape)
            subject, number = _named(root, case)
            _write(folder / subject / f"{number}{_ENDING}", image)
            _write(folder / subject / f"{number}_obs00{_ENDING}", mask.astype(np.uint8) * 255)
            written.append(f"{subject}/{number}")
            used.add(subject)
    lines = [f"{len(written)} frames of {len(used)} subjects"]
    if lists:
        named = {name: tuple(sorted(own & used)) for name, own in {**lists, "test": subjects["Ts"]}.items()}
        Splits(seed=0, lists=named, keys_sha256=hash_keys(written)).write(folder / SPLITS_FILE)
        lines.append(
            f"{SPLITS_FILE}: fold 0 of {_SPLITS}" + ("" if len(splits or []) == 1 else f" of {len(splits or [])}")
        )
    else:
        lines.append(f"'{root}' has no {_SPLITS}: lists will be drawn by data.shares.")
    if unlabelled:
        lines.append(f"{unlabelled} cases have no label and are left out.")
    return [*lines, *_left_out(root, cases)]


def _case_of(frame: Frame) -> str:
    case = f"{frame.name.subject}_{frame.name.number:05d}"
    if frame.name.subject is None or not _CASE.fullmatch(case):
        raise DataError(
            f"'{frame.name.text}' is of the subject '{frame.name.subject}'; nnU-Net's files need a name of letters, "
            "digits, dots and dashes. Rename it, or add subjects.csv."
        )
    return case


def _named(root: Path, case: str) -> tuple[str, str]:
    found = _CASE.fullmatch(case)
    if found is None:
        raise DataError(
            f"'{root}': the case '{case}' names no subject. Name the cases SUBJECT_NUMBER, as patient7_012."
        )
    return found["subject"], found["number"]


def _cases(root: Path, ending: str) -> list[str]:
    tail = _CHANNEL + _ENDING
    return [path.name.removesuffix(tail) for path in _files(root / f"images{ending}") if path.name.endswith(tail)]


def _left_out(root: Path, cases: Mapping[str, Sequence[str]]) -> list[str]:
    """Tell of files that are no case's image or label."""
    told = []
    for ending, own in cases.items():
        for name, tail in ((f"images{ending}", _CHANNEL), (f"labels{ending}", "")):
            known = {f"{case}{tail}{_ENDING}" for case in own}
            other = [path.name for path in _files(root / name) if path.name not in known]
            if other:
                told.append(f"{len(other)} files of {name}, such as '{other[0]}', are of no case and left out.")
    return told


def _files(folder: Path) -> list[Path]:
    return list_files(folder, lambda _: True) if folder.is_dir() else []


def _fold(root: Path, splits: Any, cases: Sequence[str]) -> dict[str, set[str]]:  # noqa: ANN401 (JSON)
    """Take the subjects of the first fold; every case must be in it."""
    try:
        named = {name: [str(each) for each in splits[0][name]] for name in ("train", "val")}
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"'{root / _SPLITS}' has no fold with 'train' and 'val'. Remove it to split anew.") from error
    listed = {each for own in named.values() for each in own}
    refuse(str(root), [f"'{root / _SPLITS}' names '{each}', which is no case." for each in sorted(listed - set(cases))])
    refuse(str(root), [f"'{root / _SPLITS}' leaves out case '{each}'." for each in sorted(set(cases) - listed)])
    return {name: {_named(root, each)[0] for each in own} for name, own in named.items()}


def _check(root: Path, described: Any) -> None:  # noqa: ANN401 (JSON)
    try:
        labels, channels = dict(described["labels"]), dict(described["channel_names"])
        ending = str(described["file_ending"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"'{root / _DATASET}' lacks labels, channel_names or file_ending of nnU-Net v2.") from error
    if ending != _ENDING or len(channels) != 1 or len(labels) != 2:
        raise DataError(
            f"'{root / _DATASET}' has files '{ending}', {len(channels)} channels and {len(labels)} labels; expected "
            f"'{_ENDING}', 1 and 2 (background and one organ)."
        )


def _json(path: Path) -> Any:  # noqa: ANN401
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except RepeatedKeyError as error:
        raise DataError(f"'{path}': {error}. Write each key once.") from error
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON. Copy or write it again.") from error


def _write(path: Path, values: Grey) -> None:
    if values.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"'{path.name}' would hold values of '{values.dtype}'; PNG holds 8 or 16 bits. Store it as uint8."
        )
    with atomic_path(path) as partial:
        Image.fromarray(values).save(partial, "PNG")
