from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.wsi.cohort.labels import Labels
from pipelines.wsi.cohort.splits import SELECTED_ON_TEST, Split, evaluated_places, split_slides, splitting_seed
from pipelines.wsi.config import WsiData
from tests.pipelines.wsi.lists import cohort_rows, config_of, labelled
from vision_core.errors import ConfigError, DataError

GIVEN = [
    "slide,label,patient,split",
    "a,x,p1,train",
    "b,y,p2,train",
    "c,x,p3,val",
    "d,y,p4,val",
    "e,x,p5,test",
    "f,y,p6,test",
]
FOLDS = ["slide,label,patient,fold", *(f"s{place},{'xy'[place % 2]},p{place},{place // 4}" for place in range(12))]


def _divide(labels: Labels, seed: int = 0, **data: Any) -> Split:  # noqa: ANN401
    return split_slides(labels, WsiData.model_validate(data), seed)


def _patients(labels: Labels, division: Split) -> Mapping[str, set[str]]:
    lists = {"train": division.train, "val": division.val, "test": division.test}
    return {name: {labels.slides[place].patient for place in places} for name, places in lists.items()}


def test_divide__given_column(tmp_path: Path) -> None:
    division = _divide(labelled(tmp_path, GIVEN))
    assert (division.train, division.val, division.test) == ((0, 1), (2, 3), (4, 5))
    assert division.notes == ()


@pytest.mark.parametrize("words", [("Training", "Validation", "TEST"), ("train", "dev", "testing")])
def test_divide__given_in_other_words(words: tuple[str, str, str], tmp_path: Path) -> None:
    rows = [row for name, word in zip(("train", "val", "test"), words, strict=True)
            for row in (each.replace(f",{name}", f",{word}") for each in GIVEN[1:] if each.endswith(name))]  # fmt: skip
    division = _divide(labelled(tmp_path, [GIVEN[0], *rows]))
    assert (division.train, division.val, division.test) == ((0, 1), (2, 3), (4, 5))


def test_divide__given_without_validation_carves_patients(tmp_path: Path) -> None:
    rows = [*(f"{row},train" for row in cohort_rows(12, 2)[1:]), "z,a,z,test", "y,b,y,test"]
    labels = labelled(tmp_path, ["slide,label,patient,split", *rows])
    division = _divide(labels, val_share=0.3)
    patients = _patients(labels, division)
    assert len(patients["val"]) == 4
    assert not patients["val"] & patients["train"]
    assert len(division.val) == 8
    assert division.test == (24, 25)
    assert "30 % of the training patients of each class validate (data.val_share)" in division.notes
    assert _divide(labels, val_share=0.3) == division != _divide(labels, seed=1, val_share=0.3)


def test_divide__other_lists_are_told_and_left(tmp_path: Path) -> None:
    division = _divide(labelled(tmp_path, [*GIVEN, "g,x,p7,external"]))
    assert division.notes == ("list 'external' is not used here: 1 slides",)
    assert _divide(labelled(tmp_path, [*GIVEN, "g,x,p7,external"]), eval_split="external").test == (6,)


def test_divide__rows_on_no_list_or_a_misspelt_one(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _divide(labelled(tmp_path, [*GIVEN, "g,x,p7,", "h,x,p8,tran"]))
    told = [problem.split("': ", 1)[1] for problem in caught.value.problems]
    assert told == [
        "row 8: slide 'g' is on no list. Complete the column 'split'.",
        "row 9: split 'tran' is not known; did you mean 'train'? Correct it.",
    ]


def test_divide__patient_on_two_lists(tmp_path: Path) -> None:
    rows = [row.replace("p5", "p1").replace("p3", "p2") for row in GIVEN]
    with pytest.raises(DataError) as caught:
        _divide(labelled(tmp_path, rows))
    told = [problem.split("': ", 1)[1] for problem in caught.value.problems]
    assert told == [
        "patient 'p2' is in training (row 3) and in validation (row 4). Put all slides of a patient on one list.",
        "patient 'p1' is in training (row 2) and in test (row 6). Put all slides of a patient on one list.",
    ]


def test_divide__tcga_cases_are_patients_without_a_column(tmp_path: Path) -> None:
    rows = [
        row.rpartition(",p")[0].replace(",", f"-{place},") + row[row.rfind(",") :]
        for place, row in enumerate(GIVEN[1:])
    ]
    rows = [f"TCGA-AA-000{place // 5}-01-{row}" for place, row in enumerate(rows)]
    with pytest.raises(DataError, match="patient 'TCGA-AA-0000' is in training"):
        _divide(labelled(tmp_path, ["slide,label,split", *rows]))


def test_divide__fold_column(tmp_path: Path) -> None:
    labels = labelled(tmp_path, FOLDS)
    tests = [_divide(labels, folds=3, fold=fold).test for fold in range(3)]
    assert tests == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    division = _divide(labels, folds=3, fold=1)
    assert len(division.val) == 2
    assert sorted((*division.train, *division.val, *division.test)) == list(range(12))


def test_divide__folds_counted_from_one(tmp_path: Path) -> None:
    labels = labelled(tmp_path, [FOLDS[0], *(f"{row[:-1]}{int(row[-1]) + 1}" for row in FOLDS[1:])])
    division = _divide(labels, folds=3, fold=0)
    assert division.test == (0, 1, 2, 3)
    assert "fold 0 of the run is fold 1 of the list" in division.notes


def test_divide__patient_in_two_folds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"patient 'p1' is in fold 0 \(row 3\) and in fold 1 \(row 7\)"):
        _divide(labelled(tmp_path, [row.replace("p5", "p1") for row in FOLDS]), folds=3, fold=0)


@pytest.mark.parametrize("folds", [0, 3])
def test_divide__stratified_by_patient(folds: int, tmp_path: Path) -> None:
    labels = labelled(tmp_path, cohort_rows(24, 2))
    data: dict[str, Any] = {"protocol": "stratified", "folds": folds, "val_share": 0.25}
    found = [_divide(labels, **data, fold=fold if folds else None) for fold in range(folds or 1)]
    for division in found:
        patients = _patients(labels, division)
        assert sum(map(len, patients.values())) == 24
        assert len(patients["test"]) == (8 if folds else 4)
        assert sorted((*division.train, *division.val, *division.test)) == list(range(48))
        for names in patients.values():
            assert sum(int(name[1:]) % 2 for name in names) * 2 == len(names)  # both classes alike
    assert len({place for division in found for place in division.test}) == (48 if folds else 8)


@pytest.mark.parametrize("protocol", ["r1", "r2"])
def test_divide__published_protocols_divide_cases(protocol: str, tmp_path: Path) -> None:
    labels = labelled(tmp_path, cohort_rows(16, 2))
    found = [_divide(labels, protocol=protocol, folds=4, fold=fold, val_share=0.2) for fold in range(4)]
    for division in found:
        patients = _patients(labels, division)
        assert {name: len(own) for name, own in patients.items()} == {"train": 10, "val": 2, "test": 4}
    assert len({place for division in found for place in division.test}) == 32


def test_divide__published_protocols_refuse_what_they_cannot_divide(tmp_path: Path) -> None:
    mixed = labelled(tmp_path, [*cohort_rows(8), "extra,b,p00"])
    with pytest.raises(DataError, match=r"rows 2, 10: slides of patient 'p00' differ in label"):
        _divide(mixed, protocol="r1", folds=2, fold=0)
    with pytest.raises(DataError, match=r"class 'a' has '4' patients, too few for data\.folds=5"):
        _divide(labelled(tmp_path, cohort_rows(8)), protocol="r2", folds=5, fold=0)


def test_divide__selected_on_test_trains_on_all_the_rest_and_says_so(tmp_path: Path) -> None:
    labels = labelled(tmp_path, cohort_rows(12))
    division = _divide(labels, protocol="r1", folds=3, fold=0, select_on_test=True)
    assert division.val == division.test
    assert len(division.train) == 8
    assert division.notes[-1] == SELECTED_ON_TEST
    given = _divide(labelled(tmp_path, GIVEN), select_on_test=True)
    assert (given.train, given.val, given.test) == ((0, 1), (4, 5), (4, 5))


def test_divide__reporting_on_the_list_that_chooses_is_told(tmp_path: Path) -> None:
    division = _divide(labelled(tmp_path, GIVEN), eval_split="val")
    assert division.test == division.val == (2, 3)
    assert "data.eval_split is 'val', which also chooses" in division.notes[-1]
    folds = _divide(
        labelled(tmp_path, cohort_rows(12)), protocol="r1", folds=3, fold=0, eval_split="val", val_share=0.3
    )
    assert folds.test == folds.val
    assert len(folds.train) + len(folds.val) == 8  # the test fold stays out


def test_divide__without_a_list_to_report_on(tmp_path: Path) -> None:
    division = _divide(labelled(tmp_path, GIVEN), eval_split=None)
    assert (division.train, division.val, division.test) == ((0, 1), (2, 3), ())
    division = _divide(labelled(tmp_path, cohort_rows(12)), protocol="stratified", eval_split=None)
    assert len(division.train) + len(division.val) == 12


def test_divide__class_without_a_slide(tmp_path: Path) -> None:
    rows = [row.replace("d,y", "d,x") for row in GIVEN]
    with pytest.raises(DataError, match="validation has no slide of class 'y' among its '2' slides"):
        _divide(labelled(tmp_path, rows))
    rows = [row.replace("b,y", "b,x") for row in GIVEN]
    with pytest.raises(DataError, match="training has no slide of class 'y' among its '2' slides"):
        _divide(labelled(tmp_path, rows))
    rows = [row.replace("f,y", "f,x") for row in GIVEN]
    assert _divide(labelled(tmp_path, rows)).test == (4, 5)


@pytest.mark.parametrize(
    ("rows", "data", "message"),
    [
        (cohort_rows(8), {}, "has no column 'split'. Add it, or a column 'fold', or set data.protocol=stratified"),
        (FOLDS, {}, "has no column 'split'. Set data.folds to their number"),
        (GIVEN, {"folds": 3, "fold": 0}, "has no column 'fold'"),
        (FOLDS, {"folds": 4, "fold": 0}, r"has '3' folds \(0, 1, 2\), not '4'. Set data.folds=3"),
        (FOLDS, {"fold": 3}, "data.fold is '3'; .* has '3' folds, counted from 0"),
        (FOLDS, {"folds": 3, "fold": 3}, "data.fold is '3'; of data.folds=3 the last is 2"),
        (FOLDS, {"folds": 3}, "data.fold is empty"),
        (FOLDS, {"folds": 1, "fold": 0}, "data.folds is '1'"),
        (cohort_rows(8), {"protocol": "r1"}, "data.protocol=r1 makes folds"),
        (cohort_rows(8), {"protocol": "stratified", "val_share": 0}, "There is no validation list"),
        (
            cohort_rows(8),
            {"protocol": "stratified", "fold": 7},
            r"data.fold is '7', but data.folds is 0\. Set data.folds",
        ),
        (cohort_rows(8), {"protocol": "r1", "folds": 2, "fold": 0, "val_share": 0}, "There is no validation list"),
        (
            GIVEN,
            {"eval_split": "external"},
            r"no slide on the list 'external' \(data.eval_split\); there is 'train, val",
        ),
        (GIVEN, {"split": "fit"}, r"no slide on the list 'fit' \(data.split\)"),
        (GIVEN, {"split": "test"}, "data.split, 'test', is also the list to choose or to report on"),
        (GIVEN, {"select_on_test": True, "eval_split": None}, "data.select_on_test needs a list"),
    ],
)
def test_divide__what_cannot_be_asked_for(
    rows: list[str], data: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        _divide(labelled(tmp_path, rows), **data)


def test_divide__seeds_that_the_old_generator_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.protocol=r2 takes seeds up to 4294967295"):
        _divide(labelled(tmp_path, cohort_rows(8)), seed=2**32, protocol="r2", folds=2, fold=0)


def test_evaluated_places__without_the_demands_of_training(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label,split", "a,x,test", "b,x,other"], ("x", "y"))
    assert evaluated_places(labels, WsiData(), 0) == ((0,), ("list 'other' is not used here: 1 slides",))
    assert evaluated_places(labels, WsiData(eval_split="other"), 0)[0] == (1,)


def test_evaluated_places__a_list_that_divides_nothing_is_taken_whole(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label", "a,x", "b,y"])
    places, notes = evaluated_places(labels, WsiData(), 0)
    assert places == (0, 1)
    assert "all of it is evaluated" in notes[0]


@pytest.mark.parametrize("data", [{"protocol": "r1", "folds": 3, "fold": 1}, {"protocol": "stratified"}])
def test_evaluated_places__is_the_test_list_of_training(data: Mapping[str, Any], tmp_path: Path) -> None:
    labels = labelled(tmp_path, cohort_rows(12))
    settings = WsiData.model_validate({**data, "val_share": 0.3})
    division = split_slides(labels, settings, 5)
    assert evaluated_places(labels, settings, 5)[0] == division.test
    for name, places in {"train": division.train, "val": division.val}.items():
        assert evaluated_places(labels, settings.model_copy(update={"eval_split": name}), 5)[0] == places


def test_evaluated_places__a_model_of_a_fold_on_another_list(tmp_path: Path) -> None:
    labels = labelled(tmp_path, ["slide,label,split", "a,x,test", "b,y,other"])
    assert evaluated_places(labels, WsiData(folds=3, fold=1), 0)[0] == (0,)
    labels = labelled(tmp_path, cohort_rows(12))
    assert len(evaluated_places(labels, WsiData(folds=3, fold=1), 0)[0]) == 12
    places, notes = evaluated_places(labels, WsiData(protocol="r1", folds=3, fold=1), 0)
    assert len(places) == 4
    assert notes[-1].startswith("4 of the list's 12 slides are evaluated: those that data.protocol=r1 held out")


def test_division_seed__its_own_or_that_of_training() -> None:
    assert splitting_seed(config_of({}, train={"seed": 4})) == 4
    assert splitting_seed(config_of({"split_seed": 0}, train={"seed": 4})) == 0
