"""Cohorts with one planted fault each: every verb tells it, in the same words, and none tells a sound one."""

import shutil
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines.wsi.config import WsiConfig
from pipelines.wsi.pipeline import WsiPipeline
from tests.pipelines.wsi.lists import config_of
from tests.pipelines.wsi.tiny import CLASSES, make_bundle
from vision_core.errors import DataError, UserError
from vision_core.randomness import key
from vision_core.slides.features.files import Features, write_features

DIM = 6
NAMES = ("s\u00e9", *(f"s{number}" for number in range(1, 12)))
SPLITS = ("train",) * 6 + ("val",) * 2 + ("test",) * 4
ENCODER = {"name": "lite0", "dim": DIM, "weights": "ab"}
SMALL = {"embedding": {"dim": 16}}
WIDE = np.ones((9, 4), np.float32)
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of twelve slides, and a bundle that was trained on such features."""
    folder = tmp_path_factory.mktemp("sound")
    for number, name in enumerate(NAMES):
        _write(folder / "features" / f"{name}.h5", number)
    rows = [f"{name},{CLASSES[number % 2]},p{number},{SPLITS[number]}" for number, name in enumerate(NAMES)]
    (folder / "labels.csv").write_text("\n".join(["slide,label,patient,split", *rows]) + "\n", encoding="utf-8")
    make_bundle(folder / "model", DIM, preprocessing={"encoder": ENCODER, "mpp": 0.5, "tile_px": 64})
    return folder


def _write(path: Path, number: int, rows: NDArray[np.float32] | None = None, **attributes: object) -> None:
    made = np.random.default_rng(key("planted", number)).normal(size=(8 + number, DIM)).astype(np.float32)
    rows = made if rows is None else rows
    corners = np.stack([np.arange(len(rows)) * 64, np.zeros(len(rows))], axis=1).astype(np.int64)
    stated = {"mpp": 0.5, "tile_px": 64, "tile_side": 64, "slide_mpp": 0.5, "encoder": ENCODER} | attributes
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(path, Features(features=rows, coords=corners, attributes=stated))


def _list(old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        text = (folder / "labels.csv").read_text(encoding="utf-8")
        assert old in text
        (folder / "labels.csv").write_text(text.replace(old, new), encoding="utf-8")

    return change


def _file(change: Change) -> Change:
    """Change the features of a slide of the test list."""
    return lambda folder: change(folder / "features" / "s9.h5")


def _nan(path: Path) -> None:
    rows = np.ones((9, DIM), np.float32)
    rows[3, 1] = np.nan
    _write(path, 9, rows)


def _flip(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["features"][0, 0] += 1


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _other_type(path: Path) -> None:
    path.unlink()
    torch.save(torch.ones(5, DIM, dtype=torch.int8), path.with_suffix(".pt"))


PLANTED: Mapping[str, tuple[Change, str]] = {
    "label in another case": (_list("s9,tumour", "s9,Tumour"), "label 'Tumour'"),
    "label with a hyphen": (_list("s9,tumour", "s9,tu-mour"), "label 'tu-mour'"),
    "error of a spreadsheet": (_list("s9,tumour", "s9,#N/A"), "slide 's9' has no label (found '#N/A')"),
    "no label": (_list("s9,tumour", "s9,"), "slide 's9' has no label (found '')"),
    "number among words": (_list("s9,tumour", "s9,1"), "label '1'"),
    "row twice": (_list("s9,tumour", "s11,tumour"), "slide 's11' stands in row 11 already"),
    "no patient": (_list("p9,", ","), "slide 's9' has no patient"),
    "cell too few": (_list("s9,tumour,p9,test", "s9,tumour,p9"), "cells, the first row"),
    "column misspelt": (_list("patient", "pateint"), "did you mean 'patient'"),
    "no such file": (_file(Path.unlink), "slide 's9' has no file"),
    "file without a row": (lambda folder: _write(folder / "features" / "z.h5", 99), "'1' files have no row: z"),
    "name twice": (lambda folder: _write(folder / "features" / "more" / "s9.h5", 98), "'s9' is there more than once"),
    "same features, other label": (
        lambda folder: shutil.copy(folder / "features" / "s9.h5", folder / "features" / "s10.h5"),
        "the same slide is there under 2 names",
    ),
    "not a number": (_file(_nan), "NaN or infinity in 1 of 9 rows, first 3"),
    "changed": (_file(_flip), "does not have the sum that was written with it"),
    "breaks off": (_file(_cut), "is damaged or no HDF5 file"),
    "web page": (_file(lambda path: path.write_text("<!doctype html>")), "is a web page, not features"),
    "pointer": (_file(lambda path: path.write_text("version https://git-lfs.github.com/spec/v1")), "git lfs pull"),
    "another width": (_file(lambda path: _write(path, 9, WIDE, encoder="x")), "4 features a tile"),
    "another encoder": (_file(lambda path: _write(path, 9, encoder=ENCODER | {"name": "uni"})), "s9.h5'"),
    "another scale": (_file(lambda path: _write(path, 9, mpp=1.0)), "s9.h5'"),
    "integers": (_file(_other_type), "type int8"),
}  # fmt: skip
SOUND: Mapping[str, Change] = {
    "as it is": lambda folder: None,
    "blanks and a byte order mark": _list("s9,tumour", "\ufeffs9 , tumour\u200b"),
    "decomposed name": _list("s\u00e9,", unicodedata.normalize("NFD", "s\u00e9") + ","),
    "name of the file": _list("s9,", "s9.svs,"),
    "end of a path": _list("s9,", "features/s9,"),
    "no tissue": _file(lambda path: _write(path, 9, np.ones((0, DIM), np.float32))),
    "no sum, as of before": lambda folder: _without_sum(folder / "features" / "s9.h5"),
}


def _without_sum(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["content_sha256"]


def _told(sound: Path, folder: Path, change: Change) -> dict[str, str]:
    """What each verb tells; empty where it tells nothing."""
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    change(folder)
    data = {"root": folder, "format": "features"}
    config = config_of(data, method="plain", model=SMALL)
    evaluated = config_of({**data, "classes": CLASSES}, method="plain", model=SMALL)
    verbs: Mapping[str, Callable[[], object]] = {
        "train": lambda: WsiPipeline().rehearse(config),
        "evaluate": lambda: WsiPipeline().evaluate(evaluated, {"plain": folder / "model"}, None),
        "validate": lambda: _validate(config),
    }
    return {name: _problems(verb) for name, verb in verbs.items()}


def _validate(config: WsiConfig) -> None:
    checked = WsiPipeline().validate(config, None, lambda _done, _total: None)
    faults = [fault for each in checked for fault in (*each.problems, *each.faults)]
    if faults:
        raise DataError(faults)


def _problems(verb: Callable[[], object]) -> str:
    try:
        verb()
    except UserError as error:
        return "\n".join(error.problems)
    return ""


@pytest.mark.parametrize("case", PLANTED)
def test_planted__told_by_all_verbs(case: str, sound: Path, tmp_path: Path) -> None:
    change, expected = PLANTED[case]
    for verb, told in _told(sound, tmp_path, change).items():
        assert expected in told, verb


@pytest.mark.parametrize("case", SOUND)
def test_sound__told_by_none(case: str, sound: Path, tmp_path: Path) -> None:
    assert _told(sound, tmp_path, SOUND[case]) == {"train": "", "evaluate": "", "validate": ""}


def test_validate__every_finding_at_once(sound: Path, tmp_path: Path) -> None:
    chosen = ("error of a spreadsheet", "file without a row", "column misspelt")
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    for case in chosen:
        PLANTED[case][0](tmp_path)
    for change, name in ((_nan, "s3"), (_flip, "s7"), (Path.unlink, "s8")):
        change(tmp_path / "features" / f"{name}.h5")
    _list("s10,normal,p10,test", "s10,normal,p1,test")(tmp_path)
    config = config_of({"root": tmp_path, "format": "features"})
    told = _problems(lambda: _validate(config))
    expected = [
        *(PLANTED[case][1] for case in chosen), "slide 's8' has no file", "NaN or infinity in 1 of 9 rows",
        "s7.h5' does not have the sum",
    ]  # fmt: skip
    for each in expected:
        assert each in told
    _list("pateint", "patient")(tmp_path)
    assert "patient 'p1' is in training (row 3) and in test (row 12)" in _problems(lambda: _validate(config))
