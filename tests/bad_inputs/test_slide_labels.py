"""Rows E14, E15, E17, E19, E20 and E21 of the reliability table, from a list and its feature files."""

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipelines.wsi.cohort.cohort import read_cohort
from pipelines.wsi.cohort.file_matching import list_features
from pipelines.wsi.cohort.splits import split_slides
from pipelines.wsi.config import WsiData
from pipelines.wsi.features.bags import training_bags, whole_bags
from tests.pipelines.wsi.lists import DIM, config_of, labelled, write_tiles
from vision_core.errors import DataError
from vision_core.slides.features.files import Features, write_features

Make = Callable[[Path], object]

LIST = (
    "slide,label,patient,split\n"
    "s1,normal,p1,train\ns2,tumor,p2,train\n"
    "s3,normal,p3,val\ns4,tumor,p4,val\n"
    "s5,normal,p5,test\ns6,tumor,p6,test\n"
)


def _write(folder: Path, text: str = LIST, encoding: str = "utf-8") -> Path:
    """A whole data set of six slides."""
    folder.mkdir()
    (folder / "labels.csv").write_bytes(text.encode(encoding))
    for number in range(1, 7):
        write_tiles(folder / "features" / f"s{number}.h5", 4)
    return folder


def _train(folder: Path, **data: object) -> tuple[str, ...]:
    config = config_of({"root": folder, "format": "features", **data})
    cohort = read_cohort(config, list_features(folder / "features"))
    train, val = training_bags(config, cohort)
    test = whole_bags(cohort.test, cohort.classes, config, train.feature_dim)
    assert all(len(bags[0, place].features) for bags in (train, val, test) for place in range(len(bags)))
    return (*cohort.notes, *train.notes, *test.notes)


def _labels(folder: Path) -> list[tuple[str, str, int]]:
    """The list, slide and number of the class of every row."""
    cohort = read_cohort(config_of({"root": folder, "format": "features"}), list_features(folder / "features"))
    lists = {"train": cohort.train, "val": cohort.val, "test": cohort.test}
    return [(name, record.slide, record.label) for name, records in lists.items() for record in records]


def _damage(name: str, change: Callable[[Path], object]) -> Make:
    return lambda folder: change(folder / "features" / name)


def _replace(old: str, new: str) -> Make:
    return lambda folder: (folder / "labels.csv").write_text(LIST.replace(old, new))


def _write_pickle(path: Path) -> None:
    path.unlink()
    torch.save({"features": torch.ones(2, DIM), "slide": Path("x")}, path.with_suffix(".pt"))


def _write_uneven(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["coords"]
        file["coords"] = np.zeros((3, 2), np.int64)


def _write_nan(path: Path) -> None:
    rows = np.ones((4, DIM), np.float32)
    rows[3, 1] = np.nan
    write_features(path, Features(features=rows))


REFUSED: list[tuple[str, Make, str]] = [
    (
        "E14 two folders",
        lambda folder: write_tiles(folder / "features" / "copy" / "s3.h5", 2),
        "row 4: slide 's3' is there more than once",
    ),
    ("E14 train and test", _replace("p5", "p1"), r"patient 'p1' is in training \(row 2\) and in test \(row 6\)"),
    ("E15 row without slide", _damage("s4.h5", Path.unlink), "row 5: slide 's4' has no file"),
    ("E15 slide without row", _damage("s7.h5", lambda path: write_tiles(path, 2)), "'1' files have no row: s7"),
    ("E15 label NaN", _replace("s2,tumor", "s2,NaN"), r"row 3: slide 's2' has no label \(found 'NaN'\)"),
    ("E15 label empty", _replace("s2,tumor", "s2,"), r"row 3: slide 's2' has no label \(found ''\)"),
    ("E15 number among words", _replace("s2,tumor", "s2,1"), "row 3: label '1' among labels such as"),
    ("E15 twice", _replace("s6,tumor", "s5,tumor"), "row 7: slide 's5' stands in row 6 already"),
    ("E15 cut row", _replace("s2,tumor,p2,train", "s2,tumor"), "row 3 has '2' cells, the first row '4'"),
    ("E15 column", _replace("patient", "pateint"), "column 'pateint' is not known; did you mean 'patient'"),
    ("E17 no class to learn", _replace("s2,tumor", "s2,normal"), "training has no slide of class 'tumor'"),
    ("E17 no class to choose on", _replace("s4,tumor", "s4,normal"), "validation has no slide of class 'tumor'"),
    ("E19 pickle", _damage("s1.h5", _write_pickle), "could run code when it is read"),
    (
        "E20 width",
        _damage("s1.h5", lambda path: write_tiles(path, 2, dim=1536)),
        r"features look like UNI2-h, .*\(1536\)",
    ),
    ("E21 lengths", _damage("s1.h5", _write_uneven), "4 rows of features, but 3 coords"),
    ("E21 NaN", _damage("s1.h5", _write_nan), "NaN or infinity in 1 of 4 rows, first 3"),
    (
        "E10 no tissue of a class",
        _damage("s2.h5", lambda path: write_tiles(path, 0)),
        "No training slide of class 'tumor' is left",
    ),
]


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_train__refused(make: Make, message: str, tmp_path: Path) -> None:
    folder = _write(tmp_path / "data")
    make(folder)
    with pytest.raises(DataError, match=message):
        _train(folder)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (LIST, "utf-8-sig"),
        (LIST.replace(",", ";"), "utf-8"),
        (LIST.replace(",", "\t"), "utf-16"),
        (LIST.replace("\n", "\r\n"), "utf-8"),
        (re.sub(r"^s(\d)", r"s\1.svs", LIST, flags=re.MULTILINE), "utf-8"),
        (LIST.replace("slide,label,patient,split", "ID,Label,case_id,Split").replace("test", "Test"), "utf-8"),
        (LIST.replace("normal", "0").replace("tumor", "1.0"), "utf-8"),
    ],
    ids=["BOM", "semicolon", "tabs of UTF-16", "CRLF", "names of files", "other names", "1.0 of a table with gaps"],
)
def test_train__accepted(text: str, encoding: str, tmp_path: Path) -> None:
    plain = _labels(_write(tmp_path / "plain"))
    assert len(plain) == 6
    folder = _write(tmp_path / "data", text, encoding)
    assert _labels(folder) == plain
    _train(folder)


def test_train__all_faults_of_a_list_at_once(tmp_path: Path) -> None:
    text = LIST.replace("s2,tumor", "s2,").replace("p4", "").replace("s6,tumor", "s5,tumour")
    with pytest.raises(DataError) as caught:
        _train(_write(tmp_path / "data", text))
    assert len(caught.value.problems) == 3


def test_train__left_out_on_request(tmp_path: Path) -> None:
    folder = _write(tmp_path / "data")
    (folder / "labels.csv").write_text(LIST + "s7,normal,p7,train\ns8,tumor,p8,train\n")
    write_tiles(folder / "features" / "s9.h5", 2)
    _write_nan(write_tiles(folder / "features" / "s8.h5", 4))
    notes = _train(folder, on_missing="drop")
    assert "labelled slides without a file, left out: 1 (s7)" in notes
    assert "files without a label, left out: 1 (s9)" in notes
    assert "slides whose features cannot be used, left out: 1 (s8)" in notes


def test_train__slides_without_tissue_are_told(tmp_path: Path) -> None:
    folder = _write(tmp_path / "data")
    write_tiles(folder / "features" / "s5.h5", 0)
    assert "slides without tissue, passed over: 1 (s5)" in _train(folder)


def test_train__test_list_without_a_class(tmp_path: Path) -> None:
    folder = _write(tmp_path / "data", LIST.replace("s6,tumor", "s6,normal"))
    assert "the test list has no slide of 'tumor': AUC is undefined there" in _train(folder)


@pytest.mark.parametrize(
    ("first", "other"),
    [("p1", "P1"), ("p1", "p 1"), ("p1", "0p1"), ("p1", "p-1"), ("17", "17.0"), ("17", "017"), ("p1", "\u04401")],
)
def test_patients__of_nearly_one_name_on_two_lists_are_told(first: str, other: str, tmp_path: Path) -> None:
    rows = [f"a,x,{first},train", "b,y,p2,train", "c,x,p3,val", "d,y,p4,val", f"e,x,{other},test"]
    labels = labelled(tmp_path, ["slide,label,patient,split", *rows])
    told = (
        f"PATIENTS OF NEARLY ONE NAME are on several lists: '{first}' and '{other}'. Write those of one person alike."
    )
    assert any(told in note for note in split_slides(labels, WsiData(), 0).notes)
    sound = labelled(tmp_path, ["slide,label,patient,split", *rows[:-1], "e,x,p10,test"])
    assert not any("NEARLY" in note for note in split_slides(sound, WsiData(), 0).notes)
