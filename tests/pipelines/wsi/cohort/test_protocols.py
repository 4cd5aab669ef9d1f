from pathlib import Path

from pipelines.wsi.cohort.folds import r1_folds
from pipelines.wsi.cohort.protocols import make_lists
from pipelines.wsi.config import WsiData
from tests.pipelines.wsi.lists import labelled


def test_make_lists__published_folds_are_of_patients_in_the_order_of_the_list(tmp_path: Path) -> None:
    rows = [
        "slide,label,patient",
        *(f"{place:02d}-{slide},{'ab'[place % 2]},p{place}" for slide in "xy" for place in range(8)),
    ]
    data = WsiData(protocol="r1", folds=2, fold=1, val_share=0.5)
    made = make_lists(labelled(tmp_path, rows), data, 3)
    train, val, test = r1_folds([0, 1] * 4, 2, 0.5, 3)[1]
    for name, patients in {"train": train, "val": val, "test": test}.items():
        assert made.by_name[name] == tuple(sorted([*patients, *(place + 8 for place in patients)]))
    assert made.notes == ("fold 1 of 2 of the published protocol r1 (seed 3)",)


def test_make_lists__a_patient_counts_as_the_class_of_most_slides(tmp_path: Path) -> None:
    rows = ["slide,label,patient"]
    rows += [
        f"{patient}-{slide},{label},{patient}"
        for patient in range(10)
        for slide, label in enumerate("aab" if patient < 5 else "ab")
    ]
    made = make_lists(labelled(tmp_path, rows), WsiData(protocol="stratified", folds=5, fold=0), 0)
    patients = {place // 3 if place < 15 else 5 + (place - 15) // 2 for place in made.by_name["test"]}
    assert sorted(patient < 5 for patient in patients) == [False, True]


def test_make_lists__names_are_those_of_the_settings(tmp_path: Path) -> None:
    rows = ["slide,label", *(f"s{place},{'ab'[place % 2]}" for place in range(20))]
    data = WsiData(protocol="stratified", split="fit", val_split="choose", eval_split="report")
    assert set(make_lists(labelled(tmp_path, rows), data, 0).by_name) == {"fit", "choose", "report"}
