import csv
from pathlib import Path

import pytest

from pipelines.wsi.cohort.cohort import features_folder, labels_path, read_cohort, read_evaluated, write_splits
from pipelines.wsi.cohort.file_matching import list_features
from pipelines.wsi.cohort.labels import read_labels
from pipelines.wsi.cohort.splits import split_slides
from pipelines.wsi.config import WsiConfig, WsiData
from tests.pipelines.wsi.lists import cohort_rows, config_of, write_list
from vision_core.config.loading import load_runs
from vision_core.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[4] / "configs" / "wsi"
GIVEN = [
    "slide,label,patient,split",
    "a,x,p1,train",
    "b,y,p2,train",
    "c,x,p3,val",
    "d,y,p4,val",
    "e,x,p5,test",
    "f,y,p6,test",
]


def _files(names: str) -> list[Path]:
    return [Path(f"{name}.h5") for name in names]


def test_read_cohort__lists_with_their_files(tmp_path: Path) -> None:
    write_list(tmp_path, GIVEN)
    cohort = read_cohort(config_of({"root": tmp_path}), _files("fedcba"))
    assert [[record.path.stem for record in own] for own in (cohort.train, cohort.val, cohort.test)] == [
        ["a", "b"],
        ["c", "d"],
        ["e", "f"],
    ]
    assert cohort.classes == ("x", "y")


def test_read_cohort__slides_of_a_case_stay_together(tmp_path: Path) -> None:
    write_list(tmp_path, [f"TCGA-AA-00{case:02d},{case % 2}" for case in range(12)])
    files = [Path(f"TCGA-AA-00{case:02d}-01Z-00-DX{number}.h5") for case in range(12) for number in (1, 2)]
    config = config_of({"root": tmp_path, "protocol": "r1", "folds": 3, "fold": 0, "val_share": 0.3})
    cohort = read_cohort(config, files)
    lists = [{record.patient for record in own} for own in (cohort.train, cohort.val, cohort.test)]
    assert [len(own) for own in lists] == [6, 2, 4]
    assert [len(own) for own in (cohort.train, cohort.val, cohort.test)] == [12, 4, 8]
    assert len(set.union(*lists)) == 12


def test_read_cohort__a_missing_file_changes_nothing_for_the_others(tmp_path: Path) -> None:
    write_list(tmp_path, cohort_rows(20))
    config = config_of(
        {"root": tmp_path, "protocol": "r2", "folds": 2, "fold": 1, "val_share": 0.3, "on_missing": "drop"}
    )
    names = [row.partition(",")[0] for row in cohort_rows(20)[1:]]
    whole = read_cohort(config, [Path(f"{name}.h5") for name in names])
    lost = whole.train[0].slide
    partial = read_cohort(config, [Path(f"{name}.h5") for name in names if name != lost])
    assert partial.train == whole.train[1:]
    assert (partial.val, partial.test) == (whole.val, whole.test)
    assert f"labelled slides without a file, left out: 1 ({lost})" in partial.notes


def test_read_cohort__a_class_lost_with_its_files(tmp_path: Path) -> None:
    write_list(tmp_path, GIVEN)
    with pytest.raises(DataError, match="validation has no slide of class 'y'"):
        read_cohort(config_of({"root": tmp_path, "on_missing": "drop"}), _files("abcef"))


def test_read_cohort__test_list_without_a_class_is_told(tmp_path: Path) -> None:
    write_list(tmp_path, GIVEN[:-1])
    cohort = read_cohort(config_of({"root": tmp_path}), _files("abcde"))
    assert "the test list has no slide of 'y': AUC is undefined there" in cohort.notes


def test_read_evaluated__a_list_of_another_hospital(tmp_path: Path) -> None:
    path = write_list(tmp_path, ["slide;label", "a;tumor", "b;tumor"], "external.csv")
    found = read_evaluated(config_of({"labels": path}), _files("ab"), ("normal", "tumor"))
    assert [record.label for record in found.records] == [1, 1]
    assert "the test list has no slide of 'normal': AUC is undefined there" in found.notes


def test_read_evaluated__no_slide_on_the_list(tmp_path: Path) -> None:
    write_list(tmp_path, GIVEN)
    with pytest.raises(DataError, match="has no slide on the list 'external'"):
        read_evaluated(config_of({"root": tmp_path, "eval_split": "external"}), _files("abcdef"), ("x", "y"))


def test_write_division__is_a_list_that_divides_alike(tmp_path: Path) -> None:
    write_list(tmp_path, cohort_rows(20, 2))
    config = config_of({"root": tmp_path, "protocol": "stratified", "val_share": 0.3})
    cohort = read_cohort(config, [Path(f"{row.partition(',')[0]}.h5") for row in cohort_rows(20, 2)[1:]])
    write_splits(tmp_path / "splits.csv", cohort, config.data)
    labels = read_labels(tmp_path / "splits.csv")
    division = split_slides(labels, WsiData(), 0)
    for own, places in {cohort.train: division.train, cohort.val: division.val, cohort.test: division.test}.items():
        assert [labels.slides[place].slide for place in places] == [record.slide for record in own]
        assert [labels.slides[place].patient for place in places] == [record.patient for record in own]
        assert [labels.slides[place].label for place in places] == [record.label for record in own]


def test_write_division__a_slide_has_one_row_when_test_selects(tmp_path: Path) -> None:
    write_list(tmp_path, GIVEN)
    config = config_of({"root": tmp_path, "select_on_test": True})
    write_splits(tmp_path / "splits.csv", read_cohort(config, _files("abcdef")), config.data)
    with (tmp_path / "splits.csv").open() as file:
        assert [(row["slide"], row["split"]) for row in csv.DictReader(file)] == [
            ("a", "train"),
            ("b", "train"),
            ("e", "test"),
            ("f", "test"),
        ]


def test_write_division__a_list_that_selects_and_reports_is_kept(tmp_path: Path) -> None:
    write_list(tmp_path, GIVEN)
    config = config_of({"root": tmp_path, "eval_split": "val", "select_on_test": True})
    cohort = read_cohort(config, _files("abcdef"))
    write_splits(tmp_path / "splits.csv", cohort, config.data)
    with (tmp_path / "splits.csv").open() as file:
        listed = [(row["slide"], row["split"]) for row in csv.DictReader(file)]
    assert cohort.test
    assert listed == [(each.slide, "train") for each in cohort.train] + [(each.slide, "val") for each in cohort.test]


def test_write_division__names_that_are_no_formulas(tmp_path: Path) -> None:
    rows = [row.replace("a,x,p1", "=1+1,x,@p1") for row in GIVEN]
    write_list(tmp_path, rows)
    config = config_of({"root": tmp_path})
    write_splits(tmp_path / "splits.csv", read_cohort(config, [Path("=1+1.h5"), *_files("bcdef")]), config.data)
    assert "\n'=1+1,'@p1,x,train\n" in (tmp_path / "splits.csv").read_text()
    assert read_labels(tmp_path / "splits.csv").slides[0].slide == "=1+1"


def _published_layout(folder: Path, experiment: str) -> list[str]:
    """Files as the released code has them: CAMELYON by slide below ``pt``, TCGA by case below ``pt_files``."""
    if experiment == "camelyon16":
        write_list(folder, [f"{'tumor' if place % 2 else 'normal'}_{place:03d},{place % 2}" for place in range(40)])
        return [f"pt/{'tumor' if place % 2 else 'normal'}_{place:03d}.pt" for place in range(40)]
    cases = [f"TCGA-{place:02d}-A{place:03d}" for place in range(40)]
    write_list(folder, [f"{case},{('LUAD', 'LUSC')[place % 2]}" for place, case in enumerate(cases)])
    return [f"pt_files/{case}-01Z-00-DX{number}.0a1b.pt" for case in cases for number in (1, 2)]


@pytest.mark.parametrize("profile", ["v1", "v2"])
@pytest.mark.parametrize(("experiment", "slides_each"), [("camelyon16", 1), ("tcga_nsclc", 2)])
def test_read_cohort__published_settings_on_published_layouts(
    experiment: str, slides_each: int, profile: str, tmp_path: Path
) -> None:
    names = _published_layout(tmp_path, experiment)
    for name in names:
        (tmp_path / "features" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "features" / name).touch()
    file = CONFIGS / f"{experiment}_mhim_{profile}.yaml"
    runs = load_runs(WsiConfig, file, [f"data.root={tmp_path}"])["abmil"].expand()
    files = list_features(tmp_path / "features")
    cohorts = [read_cohort(run, files) for run in runs.values() if isinstance(run, WsiConfig)]
    for cohort in cohorts:
        lists = (cohort.train, cohort.val, cohort.test)
        assert sum(map(len, lists)) == 40 * slides_each
        assert len({record.patient for own in lists for record in own}) == 40
    held = {record.slide for cohort in cohorts for record in cohort.test}
    assert len(held) == 40 * slides_each  # the folds' test lists are all slides
    assert cohorts[0] == cohorts[1]  # teacher and student of a fold


def test_paths__below_the_root_unless_named(tmp_path: Path) -> None:
    data = WsiData(root=tmp_path)
    assert (labels_path(data), features_folder(data)) == (tmp_path / "labels.csv", tmp_path / "features")
    data = WsiData(root=tmp_path, labels=Path("l.csv"), features=Path("f"))
    assert (labels_path(data), features_folder(data)) == (Path("l.csv"), Path("f"))
    for find in (labels_path, features_folder):
        with pytest.raises(ConfigError, match=r"data\.root are both empty"):
            find(WsiData())
